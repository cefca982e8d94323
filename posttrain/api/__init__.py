"""The Python door: the verbs of the command line, for notebooks and programs.

    import posttrain
    result = posttrain.compare("tickets.csv", minutes=10)
    answers = posttrain.predict("latest", "new.csv")

Here engines are built and joined to tasks.  Inside a running event loop (a notebook) a verb runs in its own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from posttrain import tasks
from posttrain.api import places
from posttrain.api.engines import Engines, opened
from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison import compare as comparing
from posttrain.comparison.compare import Listener
from posttrain.comparison.conclude import Settings
from posttrain.comparison.results import ComparisonResult
from posttrain.discovery import find
from posttrain.evaluation.evaluate import evaluate as evaluate_candidate
from posttrain.evaluation.record import Evaluation
from posttrain.rollouts import taught
from posttrain.runs import Budget, Progress, Run, read_json, silent, write_json
from posttrain.server.app import serve as serve_app
from posttrain.techniques import _chain as chain
from posttrain.types import Candidate, Message, Row, Task, UserError

EMBEDDED = "smollm2"
"""The model that is used when none is named: it travels with the installation."""

Result = TypeVar("Result")


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine, also where an event loop is already running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


# ---------------------------------------------------------------------------------------------------------
# compare


def compare(
    task: Task | str | Path,
    *,
    candidates: Sequence[str] = (),
    models: Sequence[str] = (EMBEDDED,),
    answers: Mapping[str, str | Path] | None = None,
    minutes: float | None = None,
    runs: Path = places.RUNS,
    seed: int = 0,
    settings: Settings = Settings(),
    resume: Path | None = None,
    listener: Listener = Listener(),
    on_progress: Callable[[Progress], None] = silent,
) -> ComparisonResult:
    """Tries every way of teaching a task and judges them on the same test rows.

    `answers` maps names of running systems to files of their answers.  `resume` is the folder of a stopped run, whose
    finished candidates are kept.  The report is in the run's folder.  Raises UserError.
    """
    if not isinstance(task, Task):
        task = places.load_task(task, seed=seed)
    for expression in candidates:
        chain.links(expression)  # an unknown name is refused before anything is written
    given = [GivenCandidate(name, tasks.match_answers(task, file)) for name, file in (answers or {}).items()]
    if not given and all(row.answer is not None for row in task.rows("test")):
        given = [GivenCandidate.of("yours", task.rows("test"))]
    asked = {
        "candidates": list(candidates),
        "models": list(models),
        "answers": {k: str(v) for k, v in (answers or {}).items()},
        "settings": asdict(settings),
    }
    if resume is None:
        run = places.new_run(runs, "compare", task, asked, seed=seed, minutes=minutes, on_progress=on_progress)
    else:
        run = _resumed(resume, task, seed, minutes, on_progress)
    with opened(replies=run.folder / "replies.jsonl") as engines:
        only_floors = candidates and all(chain.kind(name) == "floor" for name in candidates)
        policies = {} if only_floors else {model: engines.policy(model) for model in models}
        return run_to_end(
            comparing.compare(
                task, policies, run, replace(settings, candidates=tuple(candidates)), given=given, listener=listener
            )
        )


def _resumed(
    folder: Path, task: Task, seed: int, minutes: float | None, on_progress: Callable[[Progress], None]
) -> Run:
    if read_json(folder / "config.json")["task_hash"] != task.hash:
        raise UserError(
            "the task has changed since this run was started",
            place=str(folder),
            remedy="start a new comparison: results on different rows cannot be put into one table",
        )
    return Run(folder, seed=seed, budget=Budget(minutes), on_progress=on_progress)


# ---------------------------------------------------------------------------------------------------------
# teach, evaluate


@dataclass(frozen=True)
class Lesson:
    """What `teach` did: the run, the candidate's evaluation on dev before and after."""

    folder: Path
    before: Evaluation
    after: Evaluation


def teach(
    expression: str,
    task: Task | str | Path,
    *,
    model: str = EMBEDDED,
    minutes: float | None = None,
    steps: int | None = None,
    runs: Path = places.RUNS,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = silent,
) -> Lesson:
    """Teaches one technique or chain (`sft`, `retrieval+sft`, `sft+grpo`) and keeps what came of it.

    `settings` are fields of the last technique's Config.  Test rows are not looked at.  Raises UserError.
    """
    if not isinstance(task, Task):
        task = places.load_task(task, seed=seed)
    chain.links(expression)  # an unknown name is refused before anything is written
    config = _config(expression, settings or {})
    run = places.new_run(
        runs,
        "teach",
        task,
        {"technique": expression, "model": model, "settings": dict(settings or {})},
        seed=seed,
        minutes=minutes,
        steps=steps,
        on_progress=on_progress,
    )

    async def work(engines: Engines) -> Lesson:
        start = PolicyCandidate.of(model, engines.policy(model), task)
        before = await evaluate_candidate(start, task, "dev", run)
        candidate = await chain.teach(expression, start, task, run.child("teaching"), last=config)
        after = await evaluate_candidate(candidate, task, "dev", run)
        await candidate.save(run.folder / "saved")
        before.write(run.folder / "before.jsonl")
        after.write(run.folder / "after.jsonl")
        write_json(
            run.folder / "result.json",
            {"schema": 1, "technique": expression, "before": before.score, "after": after.score, "n": after.n},
        )
        return Lesson(run.folder, before, after)

    with opened(replies=run.folder / "replies.jsonl") as engines:
        return run_to_end(work(engines))


def _config(expression: str, settings: Mapping[str, Any]) -> Any:
    """The Config of the last technique of a chain with these settings; None when there are none."""
    if not settings:
        return None
    name = expression.split("+")[-1]
    kind = getattr(find("techniques", name), "Config", None)
    known = kind.__dataclass_fields__ if kind else {}
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise UserError(
            f"{name} has no setting {unknown[0]!r}", place="--set", remedy=f"known: {', '.join(known) or 'none'}"
        )
    return kind(**settings) if kind else None


def evaluate(
    place: str,
    task: Task | str | Path,
    *,
    split: str = "test",
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
) -> Evaluation:
    """A run's winner, a saved candidate or a bare model on one split of a task.  Raises UserError."""
    if not isinstance(task, Task):
        task = places.load_task(task)
    with opened() as engines:
        candidate = places.load_candidate(place, engines, runs)
        if isinstance(candidate, PolicyCandidate) and not candidate.instructions and candidate.kind == "prompt":
            candidate = replace(candidate, instructions=task.instructions, output=task.output)
        run = places.new_run(runs, "evaluate", task, {"candidate": place, "split": split}, on_progress=on_progress)
        evaluation = run_to_end(evaluate_candidate(candidate, task, split, run))
    evaluation.write(run.folder / f"{split}.jsonl")
    return evaluation


# ---------------------------------------------------------------------------------------------------------
# predict, serve, export


@dataclass(frozen=True)
class Prediction:
    """An answer to an unlabelled row.  `abstained`: its confidence is below the threshold, or unknown."""

    id: str
    answer: str
    confidence: float | None
    abstained: bool
    error: str = ""


def predict(
    place: str,
    rows: str | Path | Sequence[str],
    *,
    threshold: float = 0.0,
    input: str = "",
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
) -> list[Prediction]:
    """Answers a file of unlabelled rows (or a list of texts), abstaining below a confidence.  Raises UserError."""
    if isinstance(rows, str | Path):
        asked = tasks.read_rows(rows, input=input)
    else:
        asked = tuple(Row(str(i), (Message("user", text),)) for i, text in enumerate(rows))
    predictions: list[Prediction] = []

    async def work(candidate: Candidate) -> None:
        for start in range(0, len(asked), 64):
            on_progress(Progress("answering", start, len(asked)))
            for rollouts in await candidate.attempt(asked[start : start + 64]):
                rollout = rollouts[0]
                confidence = rollout.completion.confidence if rollout.completion else None
                unsure = bool(rollout.error) or (threshold > 0 and (confidence is None or confidence < threshold))
                predictions.append(Prediction(rollout.row.id, rollout.answer, confidence, unsure, rollout.error))

    with opened() as engines:
        run_to_end(work(places.load_candidate(place, engines, runs)))
    return predictions


def serve(
    what: Sequence[str] = (places.LATEST,),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    runs: Path = places.RUNS,
    ready: Callable[[str, list[str]], None] | None = None,
) -> None:
    """Serves the winners of runs, saved candidates and bare models behind OpenAI's chat API, until interrupted.

    `ready` is called with the URL and the names under which they answer.  Raises UserError.
    """
    with opened() as engines:
        served: dict[str, Candidate] = {}
        for place in what:
            candidate = places.load_candidate(place, engines, runs)
            served[candidate.name if candidate.name not in served else place] = candidate
        run_to_end(serve_app(served, host, port, (lambda url: ready(url, list(served))) if ready else None))


def export(place: str, to: str, folder: Path, *, runs: Path = places.RUNS) -> Any:
    """Writes a trained candidate in a format others read (`peft`, `merged`), proven equal.  Raises UserError."""
    exporter = find("exports", to)
    source = Path(place) if (Path(place) / "candidate.json").exists() else None
    run = (
        source.parents[2]
        if source and len(source.parents) > 2
        else places.find_run(place.partition("/candidates/")[0], runs)
    )
    task = tasks.load(read_json(run / "config.json")["task_source"])
    with opened(precision="float32") as engines:  # the proof is against plain fp32
        candidate = places.load_candidate(place, engines, runs)
        if not isinstance(candidate, PolicyCandidate) or candidate.kind != "weights":
            raise UserError(
                f"{candidate.name} has no trained weights to export",
                place=place,
                remedy="export what sft, dpo or grpo made: posttrain export RUN/NAME; a prompt is in candidate.json",
            )
        rows = task.rows("dev")[:8]
        probes = [taught(candidate, row) for row in rows if row.target is not None]
        prompts = [candidate.prompt(row) for row in rows[:4]]
        return run_to_end(exporter.export(candidate, folder, probes, prompts))


__all__ = ["compare", "evaluate", "export", "predict", "serve", "teach"]
