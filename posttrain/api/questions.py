"""What a comparison is asked, anew, to go on or on another model: resolved before anything is opened or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from posttrain import tasks
from posttrain.api import places
from posttrain.api.engines import EMBEDDED, is_endpoint, refuse_unknown
from posttrain.api.sources import digest, load_task
from posttrain.candidates.given import GivenCandidate
from posttrain.comparison import compare as comparing
from posttrain.comparison.conclude import Settings
from posttrain.comparison.money import Prices, StatedCost
from posttrain.comparison.plan import ordered
from posttrain.comparison.stated_costs import read_costs
from posttrain.discovery import names
from posttrain.runs import read_json
from posttrain.techniques import _chain as chain
from posttrain.types import Task, UserError

COLUMNS = ("input", "target", "test", "grader")


class Details(TypedDict, total=False):
    """What else may be said, as with the options of the command line.  The first four are for a file of examples."""

    input: str
    target: str | Sequence[str]
    test: str | Path | None
    grader: str
    prices: Prices
    volume: float  # requests per month
    costs: str | Path | Mapping[str, StatedCost]  # costs.toml, or what would stand in it, by candidate


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
    runs: Path = places.RUNS,
    resume: str | Path | None = None,
    like: str | Path | None = None,
    **details: Unpack[Details],
) -> Question:
    """Resolves what `compare` was given.  Raises UserError for what cannot be asked, before anything is written."""
    if unknown := details.keys() - Details.__annotations__.keys():
        raise TypeError(f"compare() got an unexpected keyword argument {min(unknown)!r}")
    earlier = _earlier(resume, like, models, runs)
    config = read_json(earlier / "config.json") if earlier else {}
    task = _task(task, config, details)
    for split in ("train", "dev", "test"):
        task.rows(split)
    said = {name: str(file) for name, file in (answers or config.get("answers") or {}).items()}
    if earlier:
        _refuse_change(config, task, earlier)
    if resume:
        _refuse_other(config, seed, models, said)
    given = _given(task, said)
    task = replace(task, notes=(*task.notes, *_unanswered(given, task)))
    chosen = tuple(candidates) or tuple(config.get("candidates", ()))
    chosen_models = tuple(models) or tuple(config.get("models", ())) or (EMBEDDED,)
    if like and earlier:
        task, chosen = _repeated(task, candidates, chosen_models, earlier)
    if chosen:
        ordered(chosen)  # an unknown name is refused
    settings = kept_settings(config.get("settings", {}))
    if like:
        settings = _on_another_model(settings, config["models"], chosen_models, chosen, given)
    found = Question(
        task=task,
        candidates=chosen,
        models=chosen_models,
        answers=said,
        given=given,
        minutes=_minutes_left(config.get("minutes"), earlier if resume else None) if minutes is None else minutes,
        seed=config.get("seed", 0) if seed is None else seed,
        settings=_stated(settings, details),
        runs=runs,
        resume=earlier if resume else None,
        like=earlier if like else Path(config["like"]) if config.get("like") else None,
    )
    if found.only_floors:
        _refuse_models(models, like)
    return found


# ---- what an earlier run says


def _earlier(resume: str | Path | None, like: str | Path | None, models: Sequence[str], runs: Path) -> Path | None:
    """The run that this one goes on with or repeats.  Raises UserError."""
    if resume and like:
        raise UserError("these do not go together", place="--resume --like", remedy="give one of them at a time")
    if like and not models:
        raise UserError(
            "another model has to be named", place="--like", remedy="add --model: a folder, a hub name, chat:URL#NAME"
        )
    return places.find_run(resume or like, runs, kind="compare") if resume or like else None  # type: ignore[arg-type]


def _refuse_change(config: Mapping[str, Any], task: Task, earlier: Path) -> None:
    """Results on different rows cannot be put beside one another."""
    if config["task_hash"] != task.hash:
        raise UserError(
            "the task has changed since this run was started",
            place=str(earlier),
            remedy="start a new comparison: results on different rows cannot be compared",
        )


def _refuse_other(
    config: Mapping[str, Any], seed: int | None, models: Sequence[str], answers: Mapping[str, str]
) -> None:
    """Nor can those of other seeds, models or answers: what is finished is not redone with them."""

    def refused(started: str, option: str) -> UserError:
        remedy = f"go on without {option}, or start a new comparison"
        return UserError(f"this run was started with {started}", place=option, remedy=remedy)

    if seed is not None and seed != config["seed"]:
        raise refused(f"seed {config['seed']}", "--seed")
    if models and list(models) != config["models"]:
        raise refused(f"the model {', '.join(config['models'])}", "--model")
    contents = {name: digest(file) for name, file in answers.items()}
    if contents != config.get("answers_sha256", contents):
        before = ", ".join(f"{name}={file}" for name, file in config["answers"].items())
        raise refused(f"other answers ({before or 'none'})", "--answers")


def _minutes_left(minutes: float | None, resumed: Path | None) -> float | None:
    """What the finished candidates of a run that is gone on with left of its minutes."""
    if minutes is None or resumed is None:
        return minutes
    finished = [read_json(path) for path in resumed.glob("candidates/*/result.json")]
    return max(0.1, minutes - sum(sum(result["timings"].values()) for result in finished) / 60)


def kept_settings(settings: Mapping[str, Any]) -> Settings:
    """The settings of an earlier run: prices, costs and volume; what was compared is kept beside them."""
    return Settings(
        prices=Prices(**settings.get("prices", {})),
        costs={name: StatedCost(**cost) for name, cost in settings.get("costs", {}).items()},
        volume_per_month=settings.get("volume_per_month"),
        on_trial=tuple(settings.get("on_trial", ())),
    )


def _on_another_model(
    settings: Settings,
    before: Sequence[str],
    models: Sequence[str],
    candidates: Sequence[str],
    given: Sequence[GivenCandidate],
) -> Settings:
    """Of an earlier run's settings those that hold on other models: what these cost is not known, and an endpoint that
    was not compared then is on trial."""
    prices, systems = settings.prices, [system.name for system in given]
    endpoints = [model for model in models if is_endpoint(model)]
    if not endpoints or not set(endpoints) <= set(before):
        prices = replace(prices, input_per_million=None, cached_per_million=None, output_per_million=None)
    if len(endpoints) == len(models) and not any(chain.kind(name) == "floor" for name in candidates):
        prices = replace(prices, per_hour=None)  # nothing is computed here
    return replace(
        settings,
        prices=prices,
        costs={name: cost for name, cost in settings.costs.items() if name in systems},
        on_trial=tuple(model for model in endpoints if model not in before or model in settings.on_trial),
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


# ---- what is said now


def _task(task: Task | str | Path | None, config: Mapping[str, Any], details: Details) -> Task:
    """The task that is named, else that of the earlier run.  Raises UserError for options without a file."""
    columns: dict[str, Any] = {name: value for name, value in details.items() if name in COLUMNS and value}
    if columns and (not task or isinstance(task, Task)):
        options = " ".join(f"--{name}" for name in columns)
        raise UserError("these are for a file of examples", place=options, remedy="name the file too")
    source = task or config.get("task_source")
    if not source:
        raise UserError("nothing to compare", place="TASK|FILE", remedy="for example: posttrain compare tickets.csv")
    return source if isinstance(source, Task) else load_task(source, **columns)


def _given(task: Task, answers: Mapping[str, str]) -> tuple[GivenCandidate, ...]:
    """The systems that run: those whose answers are in a file, else that of the rows.  Raises UserError."""
    techniques = names("techniques")
    for name in answers:
        if all(part.strip() in techniques for part in name.partition("@")[0].split("+")):
            raise UserError(
                f"{name!r} is what a technique's candidate is called, and one would take the place of the other",
                place="--answers",
                remedy="give your system another name, for example ours=FILE",
            )
    if not answers and any(row.answer is not None for row in task.rows("test")):
        return (GivenCandidate.of("yours", task.rows("test")),)
    return tuple(GivenCandidate(name, tasks.match_answers(task, file)) for name, file in answers.items())


def _unanswered(given: Sequence[GivenCandidate], task: Task) -> list[str]:
    """A note for each running system of the test rows that it has no answer to: there it fails."""
    rows, notes = task.rows("test"), []
    for system in given:
        missing = [row for row in rows if row.id not in system.answers]
        if missing:
            count = f"{len(missing):,} of {len(rows):,} test rows"
            notes.append(f"{system.name}: no answer to {count} (first: {missing[0].id}), which count as not right")
    return notes


def _stated(settings: Settings, details: Details) -> Settings:
    """The settings with the prices, costs and volume that are stated now; the others stay as they were."""
    if stated := details.get("prices"):
        new = {name: price for name, price in vars(stated).items() if price != getattr(Prices(), name)}
        settings = replace(settings, prices=replace(settings.prices, **new))
    costs = details.get("costs")
    if costs is not None:
        costs = dict(costs) if isinstance(costs, Mapping) else read_costs(Path(costs))
        settings = replace(settings, costs=costs)
    volume = details.get("volume")
    return settings if volume is None else replace(settings, volume_per_month=volume)


def _refuse_models(models: Sequence[str], like: str | Path | None) -> None:
    """Raises UserError for models that nothing asks: with --like, where one has to be named, for what is none."""
    if models and not like:
        raise UserError(
            "no candidate needs a model",
            place="--model",
            remedy="leave it out, or add a candidate that asks one, such as base",
        )
    for model in models:
        refuse_unknown(model)
