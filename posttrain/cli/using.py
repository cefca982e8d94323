"""predict, chat, serve, export: what a winner is for."""

from __future__ import annotations

import asyncio
import csv
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, TextIO

import typer

from posttrain import api
from posttrain.api import places
from posttrain.api.engines import opened
from posttrain.cli import options, show
from posttrain.cli.options import Input, Json, Runs
from posttrain.runs import disk_errors
from posttrain.server.app import how_to_call
from posttrain.types import Candidate, Message, Row


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
        options.print_json({"schema": 1, "predictions": [asdict(prediction) for prediction in predictions]})
        return
    with disk_errors(output) if output else nullcontext(), _opened(output) as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "answer", "confidence", "abstained"))
        for one in predictions:
            sure = "" if one.confidence is None else f"{one.confidence:.3f}"
            writer.writerow(
                (one.id, "" if one.abstained else one.answer, sure, one.error or ("yes" if one.abstained else ""))
            )
    abstained = sum(prediction.abstained for prediction in predictions)
    show.errors.print(f"{len(predictions)} rows, {abstained} abstained{f'; written to {output}' if output else ''}")


def _opened(output: Path | None) -> AbstractContextManager[TextIO]:
    return output.open("w", newline="", encoding="utf-8") if output else nullcontext(sys.stdout)


def chat(
    place: Annotated[str, typer.Argument(metavar="RUN|MODEL")] = places.LATEST,
    runs: Runs = places.RUNS,
) -> None:
    """Talk to a run's winner, or to a bare model, in the terminal.  An empty line ends it.

    Example: posttrain chat latest
    """
    with opened() as engines:
        candidate = places.load_candidate(place, engines, runs)
        asyncio.run(_talk(candidate))


async def _talk(candidate: Candidate) -> None:
    history: list[Message] = []
    keeps_history = candidate.kind != "floor" and not getattr(candidate, "demonstrations", ())
    show.errors.print(f"[dim]{candidate.name}; an empty line ends it[/]")
    while True:
        try:
            asked = await asyncio.to_thread(input, "> ")
        except EOFError:
            return
        if not asked.strip():
            return
        row = Row("chat", (*history, Message("user", asked)))
        [[rollout]] = await candidate.attempt([row], on_text=lambda _, __, text: print(text, end="", flush=True))
        print(rollout.error and f"error: {rollout.error}")
        if keeps_history:
            history = [*row.messages, replace(Message("assistant", rollout.answer), weight=0.0)]


def serve(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="RUN|MODEL ...", help="Default: the latest run's winner.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    data: Annotated[Path, typer.Option("--data", help="Folder of the runs.")] = places.RUNS,
) -> None:
    """Serve winners behind OpenAI's chat API: any OpenAI client works.

    Example: posttrain serve latest --port 8000
    """

    def ready(url: str, names: list[str]) -> None:
        show.console.print(f"serving [bold]{', '.join(names)}[/] at {url}/v1  (Ctrl-C stops)\n")
        show.console.print(how_to_call(url, names[0]), markup=False, soft_wrap=True)
        sys.stdout.flush()

    show.errors.print("[dim]loading ...[/]")
    api.serve(what or [places.LATEST], host=host, port=port, runs=data, ready=ready)


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
        options.print_json({"schema": 1, "folder": str(output), "format": to, **asdict(proof)})
    else:
        show.console.print(f"written to [bold]{output}[/]; proven: {proof}")
