"""check, show, clean: what is wrong with a task, what a run found, what can go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from posttrain import tasks
from posttrain.api import places
from posttrain.api.engines import is_endpoint, opened
from posttrain.api.loops import away_from_loops
from posttrain.comparison import compare as comparing
from posttrain.comparison.results import ComparisonResult
from posttrain.runs import disk_errors
from posttrain.tasks import Finding
from posttrain.types import Task, UserError


def check(task: Task | str | Path, *, model: str = "") -> list[Finding]:
    """What is wrong with a task, errors first, before any model is asked.  Raises UserError when there is none.

    With a `model`, lengths are counted in its tokens, and rows that do not fit into its context are errors.
    """
    if is_endpoint(model):
        raise UserError(
            "an endpoint does not say what its tokens are",
            place=model,
            remedy="give a local model, or leave --model out",
        )

    def look() -> list[Finding]:
        with opened() as engines:
            return tasks.check(task, policy=engines.policy(model) if model else None)

    return away_from_loops(look)


def show(run: str | Path = places.LATEST, *, runs: Path = places.RUNS) -> ComparisonResult:
    """The result of a finished comparison.  Raises UserError."""
    return comparing.read(places.find_run(run, runs, kind="compare"))


@dataclass(frozen=True)
class Cleaning:
    """The runs that go (oldest first), how many bytes they hold, and how many are kept."""

    old: tuple[Path, ...]
    size: int
    kept: int


def would_clean(keep: int = 5, *, runs: Path = places.RUNS) -> Cleaning:
    """What `clean` would remove: all but the `keep` newest runs."""
    folders = places.all_runs(runs)
    old = folders[: len(folders) - keep] if keep < len(folders) else []
    size = sum(file.stat().st_size for folder in old for file in folder.rglob("*") if file.is_file())
    return Cleaning(tuple(old), size, len(folders) - len(old))


def clean(keep: int = 5, *, runs: Path = places.RUNS) -> Cleaning:
    """Removes all but the `keep` newest runs, without asking.  Raises UserError."""
    found = would_clean(keep, runs=runs)
    for folder in found.old:
        with disk_errors(folder):
            shutil.rmtree(folder)
    return found
