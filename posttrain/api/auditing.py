"""audit: whether the graders of tasks can be paid without doing the task, and what a mended one would have paid."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from posttrain.api import places
from posttrain.api.loops import away_from_loops
from posttrain.api.sources import load_task
from posttrain.discovery import find, names
from posttrain.evaluation.audit import auditing
from posttrain.evaluation.rescoring import Rescoring, rescored
from posttrain.runs import Progress, read_lines
from posttrain.types import Task, UserError

IMPORTED = "tasks.imported"


def audit(
    *sources: Task | str | Path, processes: int = 1, progress: Callable[[Progress], None] | None = None
) -> list[auditing.Audit]:
    """What answers that do not do the task earn, of each task; `reasoning_gym` alone means all of its generators.

    Several tasks are audited in so many processes; with more than one, a script must guard its start with `if __name__
    == "__main__":`, as Python's multiprocessing asks for.  Raises UserError.
    """
    given = [each for source in sources for each in expanded(source)]
    found = []
    for number, one in enumerate(_audits(given, processes), 1):
        found.append(one)
        if progress:
            progress(Progress("audit", number, len(given), one.task))
    return found


def rescore(task: Task | str | Path, run: str | Path = places.LATEST, *, runs: Path = places.RUNS) -> Rescoring:
    """The rollouts that a run has written down, by the task's grader as it is now.  Raises UserError."""
    folder = places.find_run(run, runs)
    records = [record for path in sorted(folder.rglob("rollouts/step-*.jsonl")) for record in read_lines(path)]
    if not records:
        raise UserError("no rollouts", place=str(folder), remedy="name a run of grpo, dr_grpo or dapo")
    judged = task if isinstance(task, Task) else load_task(str(task))
    return away_from_loops(lambda: asyncio.run(rescored(judged, records)))


def expanded(source: Task | str | Path) -> list[Task | str | Path]:
    """A name that stands for many tasks as all of them."""
    variants = getattr(find(IMPORTED, str(source)), "variants", None) if str(source) in names(IMPORTED) else None
    return [f"{source}:{variant}" for variant in variants()] if variants else [source]


def _audits(given: Sequence[Task | str | Path], processes: int) -> Iterator[auditing.Audit]:
    sources = [str(source) for source in given if not isinstance(source, Task)]
    if len(sources) < max(2, len(given)) or processes < 2:
        yield from map(_audited, given)
        return
    # begun anew, and not copies of this process: threads of libraries that are loaded here would be missing there
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_audited, sources)


def _audited(source: Task | str | Path) -> auditing.Audit:
    task = source if isinstance(source, Task) else _task(str(source))
    return away_from_loops(lambda: asyncio.run(auditing.audit(task)))


def _task(source: str) -> Task:
    """With no more rows than are looked at, where rows are made."""
    name, _, variant = source.partition(":")
    if name in names(IMPORTED) and variant:
        made: Task = find(IMPORTED, name).task(variant, {"train": auditing.ROWS})
        return made
    return load_task(source)
