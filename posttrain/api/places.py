"""What a word on the command line means: a task or a file of examples, a run, a saved candidate, a model."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain import candidates, tasks
from posttrain.api.engines import Engines
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.conclude import folder_name
from posttrain.runs import SCHEMA, Budget, Progress, Run, commit, read_json, silent, write_json
from posttrain.types import Candidate, Output, Task, UserError

RUNS = Path("runs")
TASKS = Path("tasks")
LATEST = "latest"


def load_task(
    source: str | Path,
    *,
    input: str = "",
    target: Sequence[str] = (),
    test: str | Path | None = None,
    grader: str = "",
    seed: int = 0,
) -> Task:
    """The task at `source`: a task folder, a built-in name, or a file of examples, made into tasks/<name> first.

    A file that was made into a task before is not made again, so that what the user mended in the folder stays.
    """
    path = Path(source)
    is_file = path.is_file() and path.name != "task.toml"
    if not is_file and not str(source).startswith("hub:"):
        return tasks.load(path.parent if path.name == "task.toml" else source)
    folder = TASKS / (path.stem if is_file else folder_name(str(source).removeprefix("hub:")))
    if (folder / "task.toml").exists():
        note = f"task: {folder}, made from {path.name} before (remove it to guess again)"
        return replace(tasks.load(folder), notes=(note,))
    return tasks.create(source, folder=folder, test=test, input=input, target=target, grader=grader, seed=seed)


def new_run(
    runs: Path,
    kind: str,
    task: Task,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
    minutes: float | None = None,
    steps: int | None = None,
    on_progress: Callable[[Progress], None] = silent,
) -> Run:
    """A new run folder with its config.json: what was asked for, and with which versions."""
    now = datetime.datetime.now()
    first = runs / f"{now:%Y%m%d-%H%M%S}-{folder_name(task.name)}-{kind}"
    folder, number = first, 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    run = Run(folder, seed=seed, budget=Budget(minutes, steps), on_progress=on_progress)
    versions = {name: importlib.metadata.version(name) for name in ("posttrain", "torch", "transformers")}
    write_json(
        folder / "config.json",
        {
            "schema": SCHEMA,
            "kind": kind,
            "task": task.name,
            "task_version": task.version,
            "task_hash": task.hash,
            "task_source": str(task.folder or task.name),
            "seed": seed,
            "minutes": minutes,
            "steps": steps,
            "date": now.date().isoformat(),
            "commit": commit(),
            "versions": versions,
            **settings,
        },
    )
    return run


def find_run(run: str | Path, runs: Path = RUNS) -> Path:
    """The folder of a run: a path, an id in `runs`, or `latest` (the newest that made candidates).

    Raises UserError naming what there is.
    """
    for folder in (Path(run), runs / str(run)):
        if is_run(folder):
            return folder
    known = sorted((path.parent for path in runs.glob("*/config.json")), key=lambda folder: folder.stat().st_ctime)
    made = [folder for folder in known if read_json(folder / "config.json")["kind"] != "evaluate"]
    if str(run) == LATEST and made:
        return made[-1]
    names = ", ".join(folder.name for folder in known[-5:]) or "none yet: start with posttrain compare"
    raise UserError(f"no run called {str(run)!r}", place=str(runs), remedy=f"the last runs are: {names}")


def is_run(folder: Path) -> bool:
    """Whether a folder is one of our runs (a model's folder has a config.json too)."""
    path = folder / "config.json"
    return path.is_file() and "task_hash" in read_json(path)


def saved(run: Path, name: str = "") -> Path:
    """The folder of a candidate of a run: the one named, else what it recommends or made.  Raises UserError."""
    if not name and (run / "saved").exists():
        return run / "saved"
    if not name:
        if not (run / "report.json").exists():
            raise UserError(
                "this run has not ended, so it has no winner yet",
                place=str(run),
                remedy=f"go on with `posttrain compare --resume {run}`, or name a candidate as RUN/NAME",
            )
        name = read_json(run / "report.json")["recommendation"]["candidate"]
    folder = run / "candidates" / folder_name(name) / "saved"
    if not folder.exists():
        known = sorted(path.parent.name for path in run.glob("candidates/*/saved"))
        raise UserError(f"this run has no candidate {name!r}", place=str(run), remedy=f"it has: {', '.join(known)}")
    return folder


def load_candidate(place: str, engines: Engines, runs: Path = RUNS) -> Candidate:
    """The candidate meant by a run (its winner), RUN/NAME, the folder of a saved candidate, or a bare model's name."""
    if (Path(place) / "candidate.json").exists():
        return candidates.load(Path(place), engines.policy)
    run, _, name = place.rpartition("/")
    if run and not is_run(Path(place)) and (run == LATEST or is_run(Path(run)) or is_run(runs / run)):
        return candidates.load(saved(find_run(run, runs), name), engines.policy)
    if place == LATEST or is_run(Path(place)) or is_run(runs / place):
        return candidates.load(saved(find_run(place, runs)), engines.policy)
    policy = engines.policy(place)
    return PolicyCandidate(place, "prompt", policy, "", Output(max_tokens=min(512, policy.context_length // 4)))
