"""compare: the main job, asked anew, gone on with (`resume`) or repeated on another model (`like`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from posttrain import tasks
from posttrain.api import places
from posttrain.api.engines import EMBEDDED, is_endpoint, opened
from posttrain.api.loops import run_to_end
from posttrain.api.sources import load_task
from posttrain.candidates.given import GivenCandidate
from posttrain.comparison import compare as comparing
from posttrain.comparison.compare import Listener
from posttrain.comparison.conclude import Settings
from posttrain.comparison.money import Prices, StatedCost
from posttrain.comparison.plan import default_candidates, ordered
from posttrain.comparison.results import ComparisonResult
from posttrain.comparison.wording import percent
from posttrain.runs import Budget, Progress, Run, read_json, silent
from posttrain.techniques import _chain as chain
from posttrain.types import Policy, Task, UserError

UNCLEAR = "no clear winner"


@dataclass(frozen=True)
class Question:
    """What a comparison is asked, with all that an earlier run said filled in; nothing is opened or written yet.

    `resume` is the folder of a stopped run to go on with; `like` the finished run that it repeats, if it does.
    """

    task: Task
    candidates: tuple[str, ...]
    models: tuple[str, ...]
    answers: Mapping[str, str]
    given: tuple[GivenCandidate, ...]
    minutes: float | None
    seed: int
    settings: Settings
    runs: Path
    resume: Path | None
    like: Path | None

    @property
    def only_floors(self) -> bool:
        """Whether no model is needed."""
        return bool(self.candidates) and all(chain.kind(name) == "floor" for name in self.candidates)


def question(
    task: Task | str | Path | None = None,
    *,
    candidates: Sequence[str] = (),
    models: Sequence[str] = (),
    answers: Mapping[str, str | Path] | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    runs: Path = places.RUNS,
    resume: str | Path | None = None,
    like: str | Path | None = None,
) -> Question:
    """Resolves what `compare` was given.  Raises UserError for what cannot be asked, before anything is written."""
    earlier = _earlier(resume, like, models, runs)
    config = read_json(earlier / "config.json") if earlier else {}
    source = task or config.get("task_source")
    if not source:
        raise UserError("nothing to compare", place="TASK|FILE", remedy="for example: posttrain compare tickets.csv")
    task = source if isinstance(source, Task) else load_task(source)
    for split in ("train", "dev", "test"):
        task.rows(split)
    if earlier:
        _refuse_change(config, task, seed if resume else None, earlier)
    said = {name: str(file) for name, file in (answers or config.get("answers") or {}).items()}
    given = [GivenCandidate(name, tasks.match_answers(task, file)) for name, file in said.items()]
    if not given and all(row.answer is not None for row in task.rows("test")):
        given = [GivenCandidate.of("yours", task.rows("test"))]
    chosen = tuple(candidates) or tuple(config.get("candidates", ()))
    chosen_models = tuple(models) or tuple(config.get("models", ())) or (EMBEDDED,)
    if like and earlier:
        task, chosen = _repeated(task, candidates, chosen_models, earlier)
    if chosen:
        ordered(chosen)  # an unknown name is refused
    settings = settings or _settings(config.get("settings", {}))
    if like:  # what candidates of another model cost is not known
        own = {name: cost for name, cost in settings.costs.items() if name in [system.name for system in given]}
        running = set(config["models"]) - set(settings.on_trial)
        settings = replace(settings, costs=own, on_trial=tuple(each for each in chosen_models if each not in running))
    return Question(
        task=task,
        candidates=chosen,
        models=chosen_models,
        answers=said,
        given=tuple(given),
        minutes=_minutes_left(config.get("minutes"), earlier if resume else None) if minutes is None else minutes,
        seed=config.get("seed", 0) if seed is None else seed,
        settings=settings,
        runs=runs,
        resume=earlier if resume else None,
        like=earlier if like else Path(config["like"]) if config.get("like") else None,
    )


def _earlier(resume: str | Path | None, like: str | Path | None, models: Sequence[str], runs: Path) -> Path | None:
    """The run that this one goes on with or repeats.  Raises UserError."""
    if resume and like:
        raise UserError("these do not go together", place="--resume --like", remedy="give one of them at a time")
    if like and not models:
        raise UserError(
            "another model has to be named", place="--like", remedy="add --model: a folder, a hub name, chat:URL#NAME"
        )
    return places.find_run(resume or like, runs, kind="compare") if resume or like else None  # type: ignore[arg-type]


def _refuse_change(config: Mapping[str, Any], task: Task, seed: int | None, earlier: Path) -> None:
    """Results on different rows, or of different seeds, cannot be put beside one another."""
    if config["task_hash"] != task.hash:
        raise UserError(
            "the task has changed since this run was started",
            place=str(earlier),
            remedy="start a new comparison: results on different rows cannot be compared",
        )
    if seed is not None and seed != config["seed"]:
        raise UserError(
            f"this run was started with seed {config['seed']}",
            place="--seed",
            remedy="go on without --seed, or start a new comparison",
        )


def _minutes_left(minutes: float | None, resumed: Path | None) -> float | None:
    """What the finished candidates of a run that is gone on with left of its minutes."""
    if minutes is None or resumed is None:
        return minutes
    finished = [read_json(path) for path in resumed.glob("candidates/*/result.json")]
    return max(0.1, minutes - sum(sum(result["timings"].values()) for result in finished) / 60)


def _settings(stated: Mapping[str, Any]) -> Settings:
    """The settings of an earlier run: prices, costs and volume; what was compared is kept beside them."""
    return Settings(
        prices=Prices(**stated.get("prices", {})),
        costs={name: StatedCost(**cost) for name, cost in stated.get("costs", {}).items()},
        volume_per_month=stated.get("volume_per_month"),
        on_trial=tuple(stated.get("on_trial", ())),
    )


def _repeated(task: Task, asked: Sequence[str], models: Sequence[str], like: Path) -> tuple[Task, tuple[str, ...]]:
    """What the earlier run compared, without what an endpoint cannot be taught; a note in the task says so."""
    if asked:
        return task, tuple(asked)
    results = comparing.read(like).candidates
    found = tuple(dict.fromkeys(result.technique for result in results if result.kind != "given"))
    endpoints = [model for model in models if is_endpoint(model)]
    trained = [name for name in found if endpoints and chain.kind(name) == "weights"]
    if trained:
        note = f"{', '.join(trained)} left out: {', '.join(endpoints)} can only be prompted"
        task = replace(task, notes=(*task.notes, note))
    return task, tuple(name for name in found if name not in trained)


def compare(
    task: Task | str | Path | None = None,
    *,
    candidates: Sequence[str] = (),
    models: Sequence[str] = (),
    answers: Mapping[str, str | Path] | None = None,
    minutes: float | None = None,
    runs: Path = places.RUNS,
    seed: int | None = None,
    settings: Settings | None = None,
    resume: str | Path | None = None,
    like: str | Path | None = None,
    on_progress: Callable[[Progress], None] = silent,
) -> ComparisonResult:
    """Tries every way of teaching a task and judges them on the same test rows.

    `answers` maps names of running systems to files of their answers.  `resume` names a stopped run, whose finished
    candidates are kept; `like` a finished one, repeated on other `models` (`still_wins` then says what came of it).
    What they were asked holds where nothing else is given.  The report is in the run's folder.  Raises UserError.
    """
    asked = question(
        task,
        candidates=candidates,
        models=models,
        answers=answers,
        minutes=minutes,
        seed=seed,
        settings=settings,
        runs=runs,
        resume=resume,
        like=like,
    )
    return answer(asked, on_progress=on_progress)


def answer(
    asked: Question,
    *,
    listener: Listener = Listener(),
    on_progress: Callable[[Progress], None] = silent,
    began: Callable[[Path], None] = lambda _: None,
) -> ComparisonResult:
    """Runs the comparison.  `began` is told the run's folder as soon as there is one.  Raises UserError."""
    with opened() as engines:
        policies = {} if asked.only_floors else {model: engines.policy(model) for model in asked.models}
        run = _run(asked, policies, on_progress)
        began(run.folder)
        engines.keep_replies(run.folder / "replies.jsonl")
        settings = replace(asked.settings, candidates=asked.candidates)
        work = comparing.compare(asked.task, policies, run, settings, given=asked.given, listener=listener)
        with places.nothing_left_of_a_refused_start(run) if asked.resume is None else nullcontext():
            return run_to_end(work)


def _run(asked: Question, policies: Mapping[str, Policy], on_progress: Callable[[Progress], None]) -> Run:
    """The folder that is gone on with, or a new one."""
    if asked.resume is not None:
        begun = _settings(read_json(asked.resume / "config.json").get("settings", {}))
        if (begun.prices, begun.costs) != (asked.settings.prices, asked.settings.costs):
            raise UserError(
                "finished candidates keep the prices and costs that this run was started with",
                place=str(asked.resume),
                remedy="go on without stating them, or start a new comparison",
            )
        return Run(asked.resume, seed=asked.seed, budget=Budget(asked.minutes), on_progress=on_progress)
    trainable = any(not is_endpoint(model) for model in policies)
    tried = asked.candidates or default_candidates(asked.task, trainable=trainable)
    said = {
        "candidates": asked.candidates,
        "resolved_candidates": ordered(tried),
        "models": asked.models,
        "answers": asked.answers,
        "settings": asdict(asked.settings),
        "like": str(asked.like or ""),
    }
    return places.new_run(
        asked.runs, "compare", asked.task, said, seed=asked.seed, minutes=asked.minutes, on_progress=on_progress
    )


@dataclass(frozen=True)
class StillWins:
    """Whether the winner of an earlier run (without a clear one, its choice) wins now; `answer` None: it was not tried.
    `sentence` says it in words."""

    run: str
    candidate: str
    answer: bool | None
    sentence: str


def still_wins(like: str | Path, new: ComparisonResult, *, runs: Path = places.RUNS) -> StillWins:
    """What became of the winner of the run `like` in a comparison that repeated it.  Raises UserError."""
    folder = places.find_run(like, runs, kind="compare")
    old = comparing.read(folder)
    before, choice = old.candidate(old.recommendation.candidate), new.recommendation.candidate
    again = [each for each in new.candidates if (each.technique, each.kind) == (before.technique, before.kind)]
    chosen = any(each.name == choice for each in again)
    won = old.recommendation.outcome != UNCLEAR
    name = f"The old {'winner' if won else 'choice (there was no clear winner)'}, {before.name}"
    if not again:
        return StillWins(str(folder), before.name, None, f"{name}, could not be tried on {new.model}.")
    best = max(again, key=lambda each: each.score)
    clear = new.recommendation.outcome != UNCLEAR
    if not clear:
        outcome = "is chosen again" if chosen else f"gives way to {choice}"
        outcome += ", but there is no clear winner,"
    elif chosen:
        outcome = "still wins" if won else "wins"
    else:
        outcome = f"no longer wins: {choice} does" if won else f"does not win: {choice} does"
    if not any(each.kind in ("prompt", "weights") for each in new.candidates):
        sentence = f"{name}, {outcome}, but nothing with a language model was compared, so no other model was tried."
    elif before.kind in ("floor", "given"):
        sentence = f"{name} ({percent(best.score)}), which needs no model of ours, {outcome} beside {new.model}."
    else:
        sentence = f"{name} on {old.model} ({percent(before.score)}), {outcome} on {new.model} ({percent(best.score)})."
    return StillWins(str(folder), before.name, chosen and clear, sentence)
