"""teach and evaluate: one technique, one score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from posttrain.api import places
from posttrain.api.engines import EMBEDDED, Engines, Precision, is_endpoint, opened
from posttrain.api.loops import run_to_end
from posttrain.api.sources import load_task
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison import bench, conclude
from posttrain.discovery import find
from posttrain.evaluation.counterparts import ask_again
from posttrain.evaluation.evaluate import evaluate as evaluate_candidate
from posttrain.evaluation.record import Evaluation
from posttrain.evaluation.suspicions import suspicions
from posttrain.runs import Budget, Progress, Run, Stop, read_json, silent, write_json
from posttrain.techniques import _chain as chain
from posttrain.techniques._sweep import refuse_unless_swept
from posttrain.types import Split, Task, UserError

RESULT = "result.json"
"""What a run of `teach` writes last."""


class Several(tuple[Any, ...]):
    """Values of one setting that are tried side by side: Several((3e-4, 1e-3))."""


@dataclass(frozen=True)
class Lesson:
    """What `teach` did: the run, the candidate's evaluation on dev before and after, and what else there is to say.

    `source` names the task.  `technique` is what was taught: the first links of the chain where it was stopped or a
    later one learnt nothing.  `seconds` is what it took, judging included; where it was gone on with, since then.
    """

    folder: Path
    source: str
    technique: str
    before: Evaluation
    after: Evaluation
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


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
    began: Callable[[Path], None] = lambda _: None,
    stop: Stop | None = None,
) -> Lesson:
    """Teaches one technique or chain (`sft`, `retrieval+sft`, `sft+grpo`) and keeps what came of it.  `model` may be
    what was taught before, too: a run (its winner), RUN/NAME or the folder of a saved candidate.

    `settings` are fields of the last technique's Config, as values or as texts.  Of those that are `Several` all
    combinations are tried side by side, and the best is kept.  Test rows are not looked at.  `began`
    is told the run's folder as soon as there is one.  Whoever asks to `stop` gets what was learnt until then.  Raises
    UserError, and KeyboardInterrupt when it was stopped before anything was learnt.
    """
    kind = chain.kind(expression)  # an unknown name is refused before anything is read or written
    sweep = {name: list(each) for name, each in (settings or {}).items() if isinstance(each, Several)}
    set_once = {name: each for name, each in (settings or {}).items() if name not in sweep}
    _configs(expression, set_once, sweep)
    if kind == "weights" and is_endpoint(model):
        raise UserError(
            f"{expression} would train {model}, which is an endpoint: it can only be prompted",
            place="--model",
            remedy="give a local model, or teach few_shot, retrieval or prompt_search",
        )
    if not isinstance(task, Task):
        task = load_task(task)
    for split in ("train", "dev"):
        task.rows(split)
    asked: dict[str, Any] = {"technique": expression, "model": model, "settings": set_once, "sweep": sweep}
    with opened() as engines:
        start = _start(model, task, engines, runs)
        asked["precision"] = conclude.precisions({model: start.policy})
        run = places.new_run(
            runs, "teach", task, asked, seed=seed, minutes=minutes, steps=steps, on_progress=on_progress, stop=stop
        )
        began(run.folder)
        with places.nothing_left_of_a_refused_start(run):
            return _to_the_end(start, task, run, asked, engines)


def go_on(
    run: str | Path,
    *,
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
    began: Callable[[Path], None] = lambda _: None,
    stop: Stop | None = None,
) -> Lesson:
    """Goes on with a run of `teach` that was killed, from its last checkpoint, as it was begun.

    Raises UserError when it has ended, or its task is another by now.
    """
    folder = places.find_run(run, runs, kind="teach")
    if (folder / RESULT).exists():
        raise UserError("this run has ended", place=str(folder), remedy="teach anew: posttrain teach TECHNIQUE TASK")
    begun = read_json(folder / "config.json")
    task = load_task(begun["task_source"])
    if task.hash != begun["task_hash"]:
        raise UserError(
            f"task {task.name} is another than when this run began",
            place=str(folder),
            remedy="teach anew, or put the task back as it was",
        )
    with opened() as engines:
        start = _start(begun["model"], task, engines, runs)
        budget = Budget(begun["minutes"], begun["steps"])
        going_on = Run(folder, seed=begun["seed"], budget=budget, on_progress=on_progress, stop=stop)
        began(folder)
        return _to_the_end(start, task, going_on, begun, engines)


def _start(model: str, task: Task, engines: Engines, runs: Path) -> PolicyCandidate:
    """What a model begins with: a bare one with the task's instructions; what was taught before, as it was then, but
    answering in this task's form.  Raises UserError for a candidate without a model."""
    saved = places.find_saved(model, runs)
    if saved is None:
        return PolicyCandidate.of(model, engines.policy(model), task)
    taught = places.load_candidate(model, engines, runs)
    if not isinstance(taught, PolicyCandidate):
        raise UserError(
            f"{taught.name} has no model in it, so nothing more can be taught to it",
            place=model,
            remedy="name a candidate of sft, dpo or grpo, or a model",
        )
    fresh = PolicyCandidate.of(model, taught.policy, task)
    instructions = taught.instructions or fresh.instructions
    return replace(taught, instructions=instructions, output=fresh.output, tools=fresh.tools)


def _to_the_end(start: PolicyCandidate, task: Task, run: Run, asked: Mapping[str, Any], engines: Engines) -> Lesson:
    engines.keep_replies(run.folder / "replies.jsonl")
    expression = asked["technique"]
    config = _configs(expression, asked["settings"], asked.get("sweep", {}))
    try:
        return run_to_end(_taught(expression, start, task, run, config))
    except UserError:
        if run.stop.asked:
            raise KeyboardInterrupt from None
        raise


async def _taught(expression: str, start: PolicyCandidate, task: Task, run: Run, config: Any) -> Lesson:
    before = await evaluate_candidate(start, task, "dev", run)
    with run.stop.heed():
        try:
            candidate, warnings = await chain.teach(expression, start, task, run.child("teaching"), last=config), []
        except chain.NothingFurther as error:
            candidate, warnings = error.kept, [f"{error.message}; what {error.kept.name} taught is kept"]
    after = await evaluate_candidate(candidate, task, "dev", run)
    await candidate.save(run.folder / "saved")
    again = await ask_again(candidate, task, after, run)
    before.write(run.folder / "before.jsonl")
    after.write(run.folder / "after.jsonl")
    result: dict[str, Any] = {
        "schema": 1,
        "technique": candidate.name,
        "scored_by": after.scored_by,
        "before": before.score,
        "after": after.score,
        "n": after.n,
        "difference": asdict(after.against(before)),
        "seconds": run.seconds,
        "notes": [*warnings, *bench.notes(candidate), *again.notes, *await suspicions(after, task, again)],
    }
    write_json(run.folder / RESULT, result)
    source, notes = str(task.folder or task.name), tuple(result["notes"])
    return Lesson(run.folder, source, candidate.name, before, after, notes, result["seconds"])


def _configs(expression: str, settings: Mapping[str, Any], sweep: Mapping[str, Sequence[Any]]) -> Any:
    """As `_config`; with a sweep one for each combination of its values, by name: "learning_rate=0.001 epochs=4"."""
    if not sweep:
        return _config(expression, settings)
    refuse_unless_swept(chain.links(expression)[-1])
    found = {}
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        name = " ".join(f"{key}={value}" for key, value in chosen.items())
        found[name] = _config(expression, {**settings, **chosen})
    return found


def _config(expression: str, settings: Mapping[str, Any]) -> Any:
    """The Config of the last technique of a chain with these settings; None when there are none."""
    if not settings:
        return None
    name = expression.split("+")[-1].strip()
    kind = getattr(find("techniques", name), "Config", None)
    types = get_type_hints(kind) if kind else {}
    unknown = [key for key in settings if key not in types]
    if kind is None or unknown:
        raise UserError(
            f"{name} has no setting {', '.join(unknown)!r}",
            place="--set",
            remedy=f"known: {', '.join(types) or 'none'}",
        )
    return kind(**{key: _value(name, key, value, types[key]) for key, value in settings.items()})


def _value(technique: str, key: str, value: Any, wanted: Any) -> Any:
    """The value of a setting, made what its field is: "3" is a number where a number is wanted.  Raises UserError."""
    try:
        found = TypeAdapter(wanted).validate_python(value)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(value)
    except (ValidationError, ValueError) as error:
        called = (
            getattr(wanted, "__name__", "") if isinstance(wanted, type) else str(wanted).replace("posttrain.types.", "")
        )
        raise UserError(
            f"{key} of {technique} is {value!r}, which is no {called}", place="--set", remedy=f"give a {called}"
        ) from error
    return found


@dataclass(frozen=True)
class Judged:
    """What `evaluate` found.  `test_uses`: how often the test split has been looked at in this folder of runs, this
    time included; None for another split; `suspicions`: what the score may owe to something else than the task;
    `notes`: what came of rows that were asked again."""

    evaluation: Evaluation
    folder: Path
    test_uses: int | None
    suspicions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    place: str,
    task: Task | str | Path,
    *,
    split: Split = "dev",
    precision: Precision | None = None,
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
) -> Judged:
    """As `evaluate`, with where it is kept and how often the test rows were looked at.  Raises UserError."""
    if not isinstance(task, Task):
        task = load_task(task)
    task.rows(split)
    with opened(precision) as engines:
        candidate = places.load_candidate(place, engines, runs, known_rows=True)
        if isinstance(candidate, PolicyCandidate) and not candidate.instructions and candidate.kind == "prompt":
            agents = PolicyCandidate.of(place, candidate.policy, task).agents
            candidate = replace(candidate, instructions=task.instructions, output=task.output, agents=agents)
        policies = {candidate.model: candidate.policy} if isinstance(candidate, PolicyCandidate) else {}
        asked = {"candidate": place, "split": split, "precision": conclude.precisions(policies)}
        run = places.new_run(runs, "evaluate", task, asked, on_progress=on_progress)
        engines.keep_replies(run.folder / "replies.jsonl")
        uses = conclude.count_test_use(run, task) if split == "test" else None  # now: it may be stopped before the end
        with places.nothing_left_of_a_refused_start(run):
            evaluation = run_to_end(evaluate_candidate(candidate, task, split, run))
            evaluation.write(run.folder / f"{split}.jsonl")
            again = run_to_end(ask_again(candidate, task, evaluation, run))
    return Judged(evaluation, run.folder, uses, run_to_end(suspicions(evaluation, task, again)), tuple(again.notes))


def evaluate(
    place: str,
    task: Task | str | Path,
    *,
    split: Split = "dev",
    precision: Precision | None = None,
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
) -> Evaluation:
    """A run's winner, a saved candidate or a bare model on one split of a task.  Looks at test are counted.

    `precision` None is the fastest that the device has but `int8`, which changes some answers.  Raises UserError.
    """
    return judge(place, task, split=split, precision=precision, runs=runs, on_progress=on_progress).evaluation
