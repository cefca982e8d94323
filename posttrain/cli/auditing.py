"""audit: whether a grader can be paid without doing the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from posttrain import api
from posttrain.api import auditing, places
from posttrain.cli import documents, show
from posttrain.cli.options import Json, Runs
from posttrain.evaluation.audit import Audit, Verdict
from posttrain.types import UserError

STYLES = {"FOOLED": "bold red", "WARN": "yellow", "CRASH": "magenta", "RESISTED": "green"}

LONGEST = 60
"""Characters of an answer in the table; --json has all of it."""


def add(app: typer.Typer) -> None:
    app.command("audit")(audit)


def audit(
    sources: Annotated[list[str], typer.Argument(metavar="TASK...")],
    processes: Annotated[int, typer.Option(help="How many tasks are audited at a time.", min=1)] = 2,
    rollouts: Annotated[
        str, typer.Option(metavar="RUN", help="Instead grade a run's stored rollouts again (latest, an id, a folder).")
    ] = "",
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """See whether a grader pays answers that do not do the task.  Exit code 1 when it does.

    It is given empty answers, other rows' answers, lists of candidates, words of its own source ... and what these earn
    is held against the wanted answers and against chance.  FOOLED: surely half of the way there or more.

    Examples:

      posttrain audit tasks/tickets

      posttrain audit reasoning_gym:puzzle24

      posttrain audit reasoning_gym --json

      posttrain audit tasks/tickets --rollouts latest
    """
    if rollouts:
        _rescore(sources, rollouts, runs, as_json=as_json)
        return
    with show.progress(quiet=as_json) as progress:
        found = api.audit(*sources, processes=processes, progress=progress)
    fooled = any(one.fooled for one in found)
    if as_json:
        documents.print_document({"ok": not fooled, "audits": [_document(one) for one in found]})
    else:
        for one in found:
            _print(one, brief=len(found) > 1)
        if len(found) > 1:
            _print_counts(found)
    if fooled:
        raise typer.Exit(1)


def _rescore(sources: list[str], run: str, runs: Path, *, as_json: bool) -> None:
    """What the grader as it is now would have paid."""
    if len(sources) != 1:
        raise UserError("rollouts are of one task", place="--rollouts", remedy="give that task alone")
    found = auditing.rescore(sources[0], run, runs=runs)
    if as_json:
        documents.print_document(asdict(found))
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("step", "rollouts", "paid then", "paid now", "less", "more"):
        table.add_column(name, justify="right")
    for step in found.steps:
        counts = str(step.less), str(step.more)
        table.add_row(str(step.step), str(step.rollouts), f"{step.before:.2f}", f"{step.after:.2f}", *counts)
    show.console.print(table)
    before, after = found.mean("before"), found.mean("after")
    show.console.print(f"all {found.rollouts}: {before:.2f} then, {after:.2f} now", style="bold")
    for text, count, then, now, row in found.losers:
        said = f"  {count} × {_short(text)}, paid {then:.2f} for row {row}, now {now:.2f}"
        show.console.print(said, markup=False, soft_wrap=True)
    if found.failed:
        show.console.print(f"  the grader fails on {found.failed} of them now", style="yellow", markup=False)


def _document(one: Audit) -> dict[str, object]:
    return {**asdict(one), "fooled": one.fooled}


def _print(one: Audit, *, brief: bool) -> None:
    """The verdicts, worst first; in brief, without those that were resisted."""
    gold, chance = one.yardstick.gold, one.yardstick.chance
    wanted = (
        "no row says what is wanted, which is taken to earn 1" if one.assumed else f"wanted answers earn {gold:.2f}"
    )
    show.console.print(f"[bold]{escape(one.task)}[/]", end="", highlight=False)
    show.console.print(
        f"  {one.rows} rows; {wanted}, the commonest of them is right by chance on {chance:.0%}", markup=False
    )
    resisted = [verdict for verdict in one.verdicts if verdict.word == "RESISTED"]
    others = sorted((verdict for verdict in one.verdicts if verdict.word != "RESISTED"), key=_order)
    if others:
        show.console.print(_table(others), width=show.width())
    for fault in one.faults:
        show.console.print(f"  {fault.kind}: {fault.told}", style="yellow", markup=False, soft_wrap=True)
    if resisted and not brief:
        names = ", ".join(verdict.probe for verdict in resisted)
        show.console.print(f"  [green]RESISTED[/] {names}", soft_wrap=True)


def _order(verdict: Verdict) -> tuple[int, float]:
    return [*STYLES].index(verdict.word), -verdict.earned


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("", "probe", "earns", "what it answers", "where"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        low, high = verdict.interval
        earns = f"{verdict.earned:.2f} ({low:.2f}–{high:.2f}, n={verdict.rows})" if verdict.rows else "fails"
        said = verdict.reason or _short(verdict.answer)
        table.add_row(
            f"[{STYLES[verdict.word]}]{verdict.word}[/]", verdict.probe, earns, escape(said), escape(verdict.place)
        )
    return table


def _short(answer: str) -> str:
    shown = repr(answer)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."


def _print_counts(found: Sequence[Audit]) -> None:
    fooled = [one.task for one in found if one.fooled]
    crash = [one.task for one in found if not one.fooled and any(each.word == "CRASH" for each in one.verdicts)]
    for style, names, what in (("red", fooled, "FOOLED"), ("magenta", crash, "CRASH, and not fooled")):
        if names:
            show.console.print(
                f"[{style}]{what}[/] ({len(names)} of {len(found)}): {escape(', '.join(names))}", soft_wrap=True
            )
