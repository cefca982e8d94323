"""init: a task folder of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from posttrain import api
from posttrain.cli import documents, options, show
from posttrain.cli.options import Input, Json, Seed, Target
from posttrain.tasks import own_grader
from posttrain.types import Task


def add(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    file: Annotated[str, typer.Argument(help="CSV, TSV, JSONL, JSON, YAML, Parquet, or hub:NAME.")],
    test: Annotated[Path | None, typer.Option(help="Rows to test on, if they are in a file of their own.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make; default tasks/<name of the file>.")] = None,
    input: Input = "",
    target: Target = "",
    grader: Annotated[
        str,
        typer.Option(
            help="exact, contains (a text or a regex), choice, number, json, similarity, assertions, code, python, "
            "or a file of your own: grade.py, written to begin with where there is none."
        ),
    ] = "",
    environment: Annotated[
        bool, typer.Option("--environment", help="Also write a world of several turns, with a test, to change.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a task folder of a file of examples, and say what was guessed.

    Examples:

      posttrain init tickets.csv

      posttrain init tickets.csv --input message --target queue,urgency --output tasks/triage

      posttrain init tickets.csv --grader grade.py

      posttrain init tickets.csv --environment
    """
    task = api.init(
        file,
        output=output,
        test=test,
        input=input,
        target=options.names(target),
        grader=grader,
        environment=environment,
        seed=seed,
    )
    if as_json:
        documents.print_document(
            {
                "folder": str(task.folder),
                "name": task.name,
                "hash": task.hash,
                "notes": task.notes,
                "splits": {split: len(rows) for split, rows in task.splits.items()},
            }
        )
        return
    show.console.print(f"[bold]{escape(str(task.folder))}[/]", soft_wrap=True)
    for note in task.notes:
        show.console.print(f"  {note}", soft_wrap=True, markup=False)
    labelled = any(row.target is not None for row in task.rows("train"))
    if grader.endswith(".py") and labelled:
        _show_grades(task)
    then = ["compare {} --minutes 10"] if labelled else ["audit {}", "teach grpo {} --minutes 20"]
    named = "".join(f"\n  posttrain {command.format(task.folder)}" for command in ["check {}", *then])
    commands = f"\nnext:{named}"
    show.console.print(commands, soft_wrap=True, markup=False)


def _show_grades(task: Task) -> None:
    """Six rows and what the grader gives for three answers to each, to be agreed with or not."""
    table = Table(box=None, pad_edge=False, title="what it gives", title_justify="left")
    for column, width in (("asked", 36), ("wanted", 30), ("wanted earns", 12), ("another row's", 13), ("nothing", 7)):
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=width, min_width=min(width, 13))
    for one in own_grader.shown(task):
        earned = [f"{value:.2f}" if isinstance(value, float) else f"fails: {value}" for _, _, value in one.graded]
        table.add_row(escape(" ".join(one.row.text.split())), escape(one.graded[0][1]), *map(escape, earned))
    show.console.print(table, width=show.width())
    path = task.folder / "grade.py" if task.folder else "grade.py"
    said = f"As you would score them? If not, change {path} and look again: posttrain check {task.folder}"
    show.console.print(said, soft_wrap=True, markup=False)
