"""init, check: tasks, without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain import tasks
from posttrain.api import places
from posttrain.cli import options, show
from posttrain.cli.options import Input, Json, Seed, Target

STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def add(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("check")(check)


def init(
    file: Annotated[str, typer.Argument(help="CSV, TSV, JSONL, JSON, YAML, Parquet, or hub:NAME.")],
    test: Annotated[Path | None, typer.Option(help="Rows to test on, if they are in a file of their own.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make; default tasks/<name of the file>.")] = None,
    input: Input = "",
    target: Target = "",
    grader: Annotated[str, typer.Option(help="exact, contains, choice, number, json, similarity, python.")] = "",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a task folder of a file of examples, and say what was guessed.

    Examples:

      posttrain init tickets.csv

      posttrain init tickets.csv --input message --target queue,urgency --output tasks/triage
    """
    folder = output or places.TASKS / Path(file.removeprefix("hub:")).stem
    task = tasks.create(
        file, folder=folder, test=test, input=input, target=options.names(target), grader=grader, seed=seed
    )
    if as_json:
        options.print_json(
            {
                "schema": 1,
                "folder": str(folder),
                "name": task.name,
                "hash": task.hash,
                "notes": task.notes,
                "splits": {split: len(rows) for split, rows in task.splits.items()},
            }
        )
        return
    show.console.print(f"[bold]{folder}[/]")
    for note in task.notes:
        show.console.print(f"  {note}", soft_wrap=True, markup=False)
    show.console.print(f"\nnext:\n  posttrain check {folder}\n  posttrain compare {folder} --minutes 10")


def check(source: Annotated[str, typer.Argument(metavar="TASK")], as_json: Json = False) -> None:
    """Look for what is wrong with a task before any model is asked.  Exit code 1 when something must be mended.

    Example: posttrain check tasks/tickets
    """
    findings = tasks.check(source)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        options.print_json({"schema": 1, "ok": not failed, "findings": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            style = STYLES[finding.level]
            show.console.print(f"[{style}]{finding.level:<8}[/] [bold]{finding.place}[/]: ", end="", soft_wrap=True)
            show.console.print(finding.message, markup=False, soft_wrap=True)
            if finding.remedy:
                show.console.print(f"         → {finding.remedy}", style="dim", markup=False, soft_wrap=True)
        if not failed:
            show.console.print("[green]ok[/]: nothing has to be mended")
    if failed:
        raise typer.Exit(1)
