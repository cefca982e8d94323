"""check, show, clean: what is wrong with a task, what a run found, what can go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from posttrain import api
from posttrain.api import looking, places
from posttrain.cli import documents, options, show
from posttrain.cli.options import Json, Runs
from posttrain.comparison import markdown, table
from posttrain.runs import read_json

STYLES = {"error": "red", "warning": "yellow", "note": "dim"}


def add(app: typer.Typer) -> None:
    app.command("check")(check)
    app.command("show")(show_run)
    app.command("clean")(clean)


def check(
    source: Annotated[str, typer.Argument(metavar="TASK")],
    model: Annotated[
        str, typer.Option("--model", help="Count in this model's tokens, and hold rows against its context.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Look for what is wrong with a task before any model is asked.  Exit code 1 when something must be mended.

    Examples:

      posttrain check tasks/tickets

      posttrain check tasks/tickets --model smollm2
    """
    findings = api.check(source, model=model)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        documents.print_document({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            style = STYLES[finding.level]
            place = escape(finding.place)
            show.console.print(f"[{style}]{finding.level:<8}[/] [bold]{place}[/]: ", end="", soft_wrap=True)
            show.console.print(finding.message, markup=False, soft_wrap=True)
            if finding.remedy:
                show.console.print(f"         → {finding.remedy}", style="dim", markup=False, soft_wrap=True)
        if not failed:
            show.console.print("[green]ok[/]: nothing has to be mended")
    if failed:
        raise typer.Exit(1)


def show_run(
    run: Annotated[str, typer.Argument(help="latest, a run's id, or its folder.")] = places.LATEST,
    everything: Annotated[bool, typer.Option("--all", help="Also tokens, training, seeds, parts and slices.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a short table, the verdict and the run, to paste into a README.")
    ] = False,
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Show a finished comparison again.

    Examples:

      posttrain show latest --all

      posttrain show latest --markdown
    """
    options.refuse_together({"--all": everything, "--markdown": as_markdown, "--json": as_json})
    folder = places.find_run(run, runs, kind="compare")
    result = api.show(folder)
    if as_json:
        documents.print_document(result.to_report())
        return
    if as_markdown:
        print(markdown.document(result, read_json(folder / "config.json")))
        return
    show.console.print(table.final(result, width=show.width()), width=show.width())
    for sentence in result.recommendation.sentences:
        show.console.print(sentence, style="bold", markup=False)
    for note in result.notes:
        show.console.print(note, style="dim", markup=False)
    if everything:
        show.console.print(table.everything(result), width=show.width())
    show.console.print(f"report: {folder / 'report.html'}", markup=False)


def clean(
    keep: Annotated[int, typer.Option(help="How many of the newest runs to keep.", min=0)] = 5,
    runs: Runs = places.RUNS,
    as_json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove old runs and say what was freed.  With --json nothing is removed unless there is --yes too.

    Example: posttrain clean --keep 3
    """
    found = looking.would_clean(keep, runs=runs)
    if as_json:
        done = looking.clean(keep, runs=runs) if yes else None
        documents.print_document(
            {
                "removed": _names(done.old if done else ()),
                "to_remove": _names(() if done else found.old),
                "bytes": found.size,
                "kept": found.kept,
            }
        )
        return
    count, size = len(found.old), f"{found.size / 1e6:.0f} MB"
    if count and not yes:
        typer.confirm(f"Remove {count} of {count + found.kept} runs in {runs} ({size})?", abort=True)
    looking.clean(keep, runs=runs)
    show.console.print(f"removed {count} runs, {size}; kept {found.kept}")


def _names(folders: tuple[Path, ...]) -> list[str]:
    return [str(folder) for folder in folders]
