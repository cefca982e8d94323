"""compare: the main job, and what came of an earlier winner on another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Unpack

from posttrain.api import places
from posttrain.api.engines import is_endpoint, opened
from posttrain.api.loops import run_to_end
from posttrain.api.questions import Details, Question, kept_settings, question
from posttrain.api.sources import digest
from posttrain.comparison import compare as comparing
from posttrain.comparison.compare import Listener
from posttrain.comparison.conclude import precisions
from posttrain.comparison.plan import default_candidates, ordered
from posttrain.comparison.results import ComparisonResult
from posttrain.comparison.wording import percent
from posttrain.runs import Budget, Progress, Run, read_json, silent
from posttrain.types import Policy, Task, UserError

UNCLEAR = "no clear winner"


def compare(
    task: Task | str | Path | None = None,
    *,
    candidates: Sequence[str] = (),
    models: Sequence[str] = (),
    answers: Mapping[str, str | Path] | None = None,
    minutes: float | None = None,
    runs: Path = places.RUNS,
    seed: int | None = None,
    resume: str | Path | None = None,
    like: str | Path | None = None,
    on_progress: Callable[[Progress], None] = silent,
    **details: Unpack[Details],
) -> ComparisonResult:
    """Tries every way of teaching a task and judges them on the same test rows.

    `answers` maps names of running systems to files of their answers.  `resume` names a stopped run, whose finished
    candidates are kept; `like` a finished one, repeated on other `models` (`still_wins` then says what came of it).
    What they were asked holds where nothing else is given.  `details` are `input`, `target`, `test` and `grader` (how a
    file of examples is read), `prices` (posttrain.Prices), `volume` (requests per month) and `costs` (costs.toml, or
    posttrain.StatedCost by candidate).  The report is in the run's folder.  Raises UserError.
    """
    asked = question(
        task,
        candidates=candidates,
        models=models,
        answers=answers,
        minutes=minutes,
        seed=seed,
        runs=runs,
        resume=resume,
        like=like,
        **details,
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
        begun = kept_settings(read_json(asked.resume / "config.json").get("settings", {}))
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
        "precision": precisions(policies),
        "answers": asked.answers,
        "answers_sha256": {name: digest(file) for name, file in asked.answers.items()},
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
