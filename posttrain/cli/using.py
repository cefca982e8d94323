"""predict, chat, serve, export: what a winner is for."""

from __future__ import annotations

import csv
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape

from posttrain import api
from posttrain.api import places
from posttrain.api.using import Conversation, conversation
from posttrain.cli import documents, show
from posttrain.cli.options import InPrecision, Input, Json, Runs
from posttrain.runs import disk_errors
from posttrain.server.calling import how_to_call


def add(app: typer.Typer) -> None:
    app.command("predict")(predict)
    app.command("chat")(chat)
    app.command("serve")(serve)
    app.command("export")(export)


def predict(
    place: Annotated[str, typer.Argument(metavar="RUN", help="latest, a run, RUN/CANDIDATE.")],
    file: Annotated[Path, typer.Argument(help="Unlabelled rows: CSV, JSONL ...")],
    threshold: Annotated[float, typer.Option(help="Abstain below this confidence (0 to 1).", min=0, max=1)] = 0.0,
    output: Annotated[Path | None, typer.Option(help="CSV to write; default: to the terminal.")] = None,
    input: Input = "",
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Answer unlabelled rows, with a confidence.

    Example: posttrain predict latest new_tickets.csv --threshold 0.8 --output answers.csv
    """
    with show.progress(quiet=as_json) as shown:
        predictions = api.predict(place, file, threshold=threshold, input=input, runs=runs, on_progress=shown)
    if as_json:
        documents.print_document({"predictions": [asdict(prediction) for prediction in predictions]})
        return
    with disk_errors(output) if output else nullcontext(), _opened(output) as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "answer", "confidence", "abstained", "error"))
        for one in predictions:
            sure = "" if one.confidence is None else f"{one.confidence:.3f}"
            abstained = "yes" if one.abstained else ""
            writer.writerow((one.id, "" if one.abstained else one.answer, sure, abstained, one.error))
    count = sum(prediction.abstained for prediction in predictions)
    show.errors.print(f"{len(predictions)} rows, {count} abstained{f'; written to {output}' if output else ''}")


def _opened(output: Path | None) -> AbstractContextManager[TextIO]:
    return output.open("w", newline="", encoding="utf-8") if output else nullcontext(sys.stdout)


def chat(
    place: Annotated[str, typer.Argument(metavar="RUN|MODEL")] = places.LATEST,
    message: Annotated[
        list[str] | None, typer.Option("--message", "-m", help="Say this, print the answer and end. Can be repeated.")
    ] = None,
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Talk to a run's winner, or to a bare model, in the terminal.  An empty line ends it.

    With --json the messages are those given, else the lines of stdin.

    Examples:

      posttrain chat latest

      posttrain chat latest --message "My parcel has not come." --json
    """
    with conversation(place, runs=runs) as talk:
        if as_json:
            lines = message or [line for line in sys.stdin.read().splitlines() if line.strip()]
            replies = [asdict(talk.ask(text)) for text in lines]
            candidate = {"candidate": talk.candidate.name, "model": talk.candidate.model}
            documents.print_document({**candidate, "replies": replies})
        elif message:
            for text in message:
                _show_reply(talk, text)
        else:
            show.errors.print(f"{talk.candidate.name}; an empty line ends it", style="dim", markup=False)
            while text := _typed():
                _show_reply(talk, text)


def _typed() -> str:
    """The next line; "" at the end."""
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _show_reply(talk: Conversation, text: str) -> None:
    reply = talk.ask(text, lambda piece: print(piece, end="", flush=True))
    print(f"error: {reply.error}" if reply.error else "")


def serve(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="RUN|MODEL ...", help="Default: the latest run's winner.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    precision: InPrecision = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of the runs.")] = places.RUNS,
    as_json: Json = False,
) -> None:
    """Serve winners behind OpenAI's chat API: any OpenAI client works.  With --json it says where once it listens.

    Example: posttrain serve latest --port 8000
    """

    def ready(url: str, names: list[str]) -> None:
        if as_json:
            documents.print_document({"url": url, "base_url": f"{url}/v1", "models": names})
            return
        named = escape(", ".join(names))
        show.console.print(f"serving [bold]{named}[/] at {url}/v1  (Ctrl-C stops)\n", soft_wrap=True)
        show.console.print(how_to_call(url, names[0]), markup=False, soft_wrap=True)
        sys.stdout.flush()

    show.errors.print("[dim]loading ...[/]")
    api.serve(what or [places.LATEST], host=host, port=port, precision=precision, runs=data, ready=ready)


def export(
    place: Annotated[str, typer.Argument(metavar="RUN", help="latest, a run, RUN/CANDIDATE.")],
    to: Annotated[str, typer.Option(help="peft (adapter) or merged (whole model).")] = "peft",
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Write trained weights in a format others read, and prove them equal to what was trained.

    Example: posttrain export latest --to merged --output ./my-model
    """
    proof = api.export(place, to, output, runs=runs)
    if as_json:
        documents.print_document({"folder": str(output), "format": to, **asdict(proof)})
    else:
        show.console.print(f"written to [bold]{escape(str(output))}[/]; proven: {escape(str(proof))}", soft_wrap=True)
