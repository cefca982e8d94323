"""predict, chat, serve, export: what a winner is for."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape

from posttrain import api
from posttrain.api import places
from posttrain.api.engines import DATABASE
from posttrain.api.serving import DATA
from posttrain.api.using import Conversation, Prediction, conversation
from posttrain.cli import documents, show
from posttrain.cli.options import InPrecision, Input, Json, Runs
from posttrain.runs import disk_errors
from posttrain.server.calling import how_to_call
from posttrain.types import UserError


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
    if output and not output.parent.is_dir():
        raise UserError("no such folder", place=str(output.parent), remedy="make it, or name another --output")
    table = _Table(output)
    with show.progress(quiet=as_json) as shown, table:
        predictions = api.predict(
            place,
            file,
            threshold=threshold,
            input=input,
            runs=runs,
            on_progress=shown,
            on_predictions=(lambda _: None) if as_json and not output else table.write,
        )
    if as_json:
        documents.print_document({"predictions": [asdict(prediction) for prediction in predictions]})
        return
    count = sum(prediction.abstained for prediction in predictions)
    show.errors.print(f"{len(predictions)} rows, {count} abstained{f'; written to {output}' if output else ''}")


class _Table(ExitStack):
    """Predictions as CSV, in a file or on stdout, as they come: what is answered is not lost when the rest is.

    The file is opened with the first of them, so that a refused start leaves an older one as it is.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path
        self.stream: TextIO | None = None

    def write(self, predictions: Sequence[Prediction]) -> None:
        with disk_errors(self.path) if self.path else nullcontext():
            if self.stream is None:
                opened = self.path.open("w", newline="", encoding="utf-8") if self.path else None
                self.stream = self.enter_context(opened) if opened else sys.stdout
                csv.writer(self.stream).writerow(("id", "answer", "confidence", "abstained", "error"))
            csv.writer(self.stream).writerows(map(_line, predictions))
            self.stream.flush()


def _line(one: Prediction) -> tuple[str, ...]:
    sure = "" if one.confidence is None else f"{one.confidence:.3f}"
    return one.id, "" if one.abstained else one.answer, sure, "yes" if one.abstained else "", one.error


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
        list[str] | None,
        typer.Argument(metavar="RUN|MODEL ...", help="Default: the latest run's winner, and the embedded model."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    precision: InPrecision = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="The same bits whatever else is asked; what prompts share is read for each."
        ),
    ] = False,
    data: Annotated[Path, typer.Option("--data", help="Folder of files and fine-tuning jobs.")] = DATA,
    database: Annotated[
        str,
        typer.Option(help="URL of a database, as postgresql+psycopg://...; default: one in --data.", envvar=DATABASE),
    ] = "",
    workers: Annotated[int, typer.Option(help="Jobs at a time; with 0, none are taken.", min=0)] = 1,
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Serve models behind OpenAI's API: any OpenAI client works, and can fine-tune what is served.  With --json it says
    where once it listens.

    Example: posttrain serve latest smollm2 --port 8000
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
    api.serve(
        what or (),
        host=host,
        port=port,
        precision=precision,
        deterministic=deterministic,
        runs=runs,
        data=data,
        database=database,
        workers=workers,
        ready=ready,
    )


def export(
    place: Annotated[str, typer.Argument(metavar="RUN|TASK", help="latest, a run, RUN/CANDIDATE; or a task.")],
    to: Annotated[
        str,
        typer.Option(help="Weights: peft (adapter), merged (whole model).  A task: verifiers, openai, inspect."),
    ] = "peft",
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Write trained weights in a format others read, proven equal to what was trained; or a task with its grader.

    Examples:

      posttrain export latest --to merged --output ./my-model

      posttrain export tasks/tickets --to verifiers --output ./tickets-env
    """
    proof = api.export(place, to, output, runs=runs)
    if isinstance(proof, list):  # of a task
        if as_json:
            documents.print_document({"folder": str(output), "format": to, "notes": proof})
            return
        show.console.print(f"written to [bold]{escape(str(output))}[/]", soft_wrap=True)
        for note in proof:
            show.console.print(f"  {note}", markup=False, soft_wrap=True)
        return
    if as_json:
        documents.print_document({"folder": str(output), "format": to, **asdict(proof)})
    else:
        show.console.print(f"written to [bold]{escape(str(output))}[/]; proven: {escape(str(proof))}", soft_wrap=True)
