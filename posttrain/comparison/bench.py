"""One candidate's way through a comparison: taught, judged, timed, priced, kept on disk.

    candidates/<name>/{result.json, dev.jsonl, test.jsonl, saved/, teaching/}

A candidate whose result.json is there is not redone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.conclude import Record, Settings, count_test_use, folder_name
from posttrain.comparison.estimate import CLOSING_SECONDS
from posttrain.comparison.latency import measure
from posttrain.comparison.money import Cost, Prices, device_cost, hosted_cost, with_stated
from posttrain.comparison.results import CandidateResult
from posttrain.comparison.wording import duration
from posttrain.evaluation.counterparts import ask_again
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.record import Evaluation
from posttrain.evaluation.suspicions import suspicions
from posttrain.runs import SCHEMA, Budget, DiskError, Run, disk_errors, read_json, write_json
from posttrain.techniques import _chain as chain
from posttrain.types import Candidate, Row, Task, TokensUsed, UserError

MORE_SEEDS = 2
"""Trainings with other seeds, beside the first."""

CURVE_SHARES = (0.25, 0.5)
"""Learning curves are drawn from these shares of the training rows, and all of them."""


class Bench:
    """Where candidates of one task are made and measured.  Results and times go into `record`."""

    def __init__(
        self,
        task: Task,
        run: Run,
        settings: Settings,
        record: Record,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.task, self.run, self.settings, self.record = task, run, settings, record
        self.note = note or record.notes.append
        self.earlier: dict[str, float] = {}  # seconds by part, of candidates that an earlier start finished
        self.searching: dict[str, TokensUsed] = {}  # of a hosted model, to find the prompt of each candidate

    def folder(self, name: str) -> Path:
        return self.run.folder / "candidates" / folder_name(name)

    def is_kept(self, name: str) -> bool:
        """Whether a candidate finished before."""
        return (self.folder(name) / "result.json").exists()

    def kept(self, name: str, technique: str) -> CandidateResult | None:
        """The result of a candidate that finished before, if it did; how long its parts took goes into the record.

        One whose answers to the test rows are gone or damaged did not: it is done again, and a note says so.
        """
        folder = self.folder(name)
        if not self.is_kept(name):
            return None
        report = read_json(folder / "result.json")
        if (report["name"], report["technique"]) != (name, technique):
            raise UserError(
                f"{name!r} ({technique}) and {report['name']!r} ({report['technique']}) would be kept in one folder",
                place=str(folder),
                remedy="give one of them another name, or compare them in two runs",
            )
        try:
            evaluation = Evaluation.read(folder / "test.jsonl")
        except UserError as error:
            with disk_errors(folder):
                (folder / "result.json").unlink()
            self.note(f"{name} is done again: {error.message} ({error.place})")
            return None
        self.earlier |= report.get("timings", {})
        self.record.timings |= self.earlier
        return CandidateResult.from_report(report, evaluation)

    async def taught(self, expression: str, name: str, start: Any, seconds: float | None) -> Candidate:
        """A candidate of this chain, taught within `seconds` (None: as long as it takes)."""
        budget = Budget(None if seconds is None else seconds / 60, self.run.budget.steps)
        run = Run(self.folder(name) / "teaching", seed=self.run.seed, budget=budget, on_progress=self.run.on_progress)
        before = _tokens_used(start)
        candidate = await chain.teach(expression, start, self.task, run)
        self.searching[name] = _tokens_used(start) - before
        return replace(candidate, name=name)  # type: ignore[type-var]

    async def judged(self, name: str, expression: str, candidate: Candidate, seconds: float) -> CandidateResult:
        """Evaluates, times and prices a candidate that took `seconds` to teach, and keeps everything."""
        folder, kind = self.folder(name), candidate.kind
        dev = None
        if not isinstance(candidate, GivenCandidate):
            with self.timed(f"{name}: dev"):
                dev = await evaluate(candidate, self.task, "dev", self.run)
            dev.write(folder / "dev.jsonl")
        count_test_use(self.run, self.task)  # now: the run may be stopped before it ends
        with self.timed(f"{name}: test"):
            test = await evaluate(candidate, self.task, "test", self.run)
        test.write(folder / "test.jsonl")
        again = await ask_again(candidate, self.task, test, self.run)
        training = getattr(candidate, "details", {}).get("training", {})
        result = CandidateResult(
            name=name,
            label="the system you run" if kind == "given" else chain.label(expression),
            technique=expression,
            model=candidate.model,
            kind=kind,
            evaluation=test,
            dev_score=dev.score if dev else None,
            training_seconds=seconds if kind in ("weights", "floor") else 0.0,
            search_seconds=seconds if kind == "prompt" else 0.0,
            trained_tokens=int(training.get("trained_tokens", 0)),
            training_runs=1 if kind == "weights" else 0,
            update_rule=_update_rule(candidate, seconds),
            curves=tuple(_curves(folder / "teaching", expression)),
            notes=(*notes(candidate), *again.notes),
            suspicions=await suspicions(test, self.task, again),
        )
        result = await self._measured(result, candidate)
        result = replace(result, notes=(*result.notes, *_said_of(candidate)))
        await candidate.save(folder / "saved")
        self.keep(result)
        _forget(candidate)
        return result

    def keep(self, result: CandidateResult) -> None:
        """Writes result.json: from now on the candidate is finished."""
        timings = {part: took for part, took in self.record.timings.items() if part.startswith(f"{result.name}: ")}
        report = {"schema": SCHEMA, **result.to_report(), "timings": timings}
        write_json(self.folder(result.name) / "result.json", report)

    async def _measured(self, result: CandidateResult, candidate: Candidate) -> CandidateResult:
        """Adds latency and cost.  A system whose answers were given costs what the user states, if anything."""
        currency, stated = self.settings.prices.currency, self.settings.costs.get(result.name)
        if result.kind == "given":
            return replace(result, cost=with_stated(None, stated, currency))
        if not self.settings.latency:
            return result
        self.run.progress(f"{result.name}: latency", 0, 1)
        policy = getattr(candidate, "policy", None)
        if getattr(policy, "remote", False):
            policy.replies_path = None  # type: ignore[union-attr]  # a kept reply takes no time
            try:
                with self.timed(f"{result.name}: latency"):
                    measured = await measure(candidate, self.task.rows("test"))
            finally:
                policy.replies_path = self.run.folder / "replies.jsonl"  # type: ignore[union-attr]
            searching = self.searching.get(result.name, TokensUsed())
            hosted = _hosted(self.settings.prices, result.evaluation, searching)
            return replace(result, latency=measured.latency, cost=hosted and with_stated(hosted, stated, currency))
        with self.timed(f"{result.name}: latency"):
            measured = await measure(candidate, self.task.rows("test"))
        if measured.latency is None:
            return result
        cost = device_cost(
            self.settings.prices,
            one_off_seconds=result.training_seconds + result.search_seconds,
            request_seconds=measured.request_seconds,
        )
        return replace(result, latency=measured.latency, cost=with_stated(cost, stated, currency))

    # ---- once more: other seeds, fewer rows

    async def more_seeds(self, result: CandidateResult, start: PolicyCandidate) -> CandidateResult:
        """Trains twice more with other seeds while there is time: one training run proves little.

        A run that learnt nothing counts as a training run, and has no score.
        """
        scores, runs, notes = [result.score], 1, list(result.notes)
        for seed in range(self.run.seed + 1, self.run.seed + 1 + MORE_SEEDS):
            if not self._time_for(result, result.training_seconds):
                break
            runs += 1
            run = self._once_more(result, f"seed-{seed}", seed, result.training_seconds)
            found = await self._again(result, f"seed {seed}", run, start)
            if isinstance(found, str):
                notes.append(found)
            else:
                scores.append(found)
        if runs == 1:
            return result
        return replace(result, seed_scores=tuple(scores), training_runs=runs, notes=tuple(notes))

    async def learning_curve(self, result: CandidateResult, start: PolicyCandidate | None) -> CandidateResult:
        """Teaches the same on a quarter and on half of the training rows, while there is time.

        A size from which nothing was learnt is left out of the curve.
        """
        rows = self.task.rows("train")
        points, notes = [], list(result.notes)
        for some in _shares(rows, self.run.seed):
            seconds = len(some) / len(rows) * result.training_seconds
            if result.kind != "floor" and not self._time_for(result, seconds):  # a floor takes next to nothing
                break
            run = self._once_more(result, f"rows-{len(some)}", self.run.seed, seconds)
            found = await self._again(result, f"{len(some)} rows", run, start, some)
            if isinstance(found, str):
                notes.append(found)
            else:
                points.append((len(some), found))
        curve = (*points, (len(rows), result.score)) if points else ()
        return replace(result, learning_curve=curve, notes=tuple(notes))

    def _time_for(self, result: CandidateResult, seconds: float) -> bool:
        """Whether the budget lets a candidate be taught once more for so long, be judged, and a report be written."""
        left = self.run.seconds_left
        judging = self.record.timings.get(f"{result.name}: test", 0.0)
        return left is None or left - CLOSING_SECONDS >= 1.1 * (seconds + judging)

    def _once_more(self, result: CandidateResult, folder: str, seed: int, seconds: float) -> Run:
        """A run for teaching again, with the time that it took before where time is limited at all."""
        minutes = None if self.run.budget.minutes is None else max(1.0, seconds) / 60
        return Run(
            self.folder(result.name) / folder,
            seed=seed,
            budget=Budget(minutes, self.run.budget.steps),
            on_progress=self.run.on_progress,
        )

    async def _again(
        self,
        result: CandidateResult,
        part: str,
        run: Run,
        start: PolicyCandidate | None,
        rows: Sequence[Row] = (),
    ) -> float | str:
        """The test score of the same candidate, taught again (on `rows`, if given), or why there is none."""
        task = replace(self.task, splits={**self.task.splits, "train": tuple(rows)}) if rows else self.task
        with self.timed(f"{result.name}: {part}"):
            try:
                candidate = await chain.teach(result.technique, start, task, run)  # type: ignore[arg-type]
                try:
                    return (await evaluate(candidate, task, "test", self.run)).score
                finally:
                    _forget(candidate)
            except DiskError:
                raise
            except UserError as error:  # no reason to lose what is finished
                note = f"{result.name}, {part}: {error.message}"
                self.record.notes.append(note)
                return note

    def timed(self, part: str) -> Clock:
        return Clock(self.record.timings, part)


class Clock:
    """Times a `with` block into a mapping."""

    def __init__(self, timings: dict[str, float], part: str) -> None:
        self.timings, self.part, self.seconds = timings, part, 0.0

    def __enter__(self) -> Clock:
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.started
        self.timings[self.part] = round(self.seconds, 2)


def _shares(rows: Sequence[Row], seed: int) -> list[Sequence[Row]]:
    """A quarter and half of the rows, the quarter within the half: drawn, for files are often sorted by label."""
    order = random.Random(f"{seed}:learning curve").sample(range(len(rows)), len(rows))
    sizes = dict.fromkeys(max(1, round(share * len(rows))) for share in CURVE_SHARES)
    return [[rows[i] for i in sorted(order[:size])] for size in sizes if size < len(rows)]


def _forget(candidate: Candidate) -> None:
    """Frees the adapters of a candidate that is judged and saved."""
    if isinstance(candidate, PolicyCandidate):
        candidate.forget()


def _hosted(prices: Prices, evaluation: Evaluation, searching: TokensUsed = TokensUsed()) -> Cost | None:
    """Cost of a hosted model by the requests that it answered; None when there were none."""
    answered = [attempt for attempt in evaluation.attempts if not attempt.error]
    if not answered:
        return None
    return hosted_cost(
        prices,
        prompt_tokens=[attempt.prompt_tokens for attempt in answered],
        completion_tokens=[attempt.completion_tokens for attempt in answered],
        cached_tokens=[attempt.cached_tokens for attempt in answered],
        searching=searching,
    )


def _tokens_used(candidate: Any) -> TokensUsed:
    """Of a hosted model; none of any other."""
    return getattr(getattr(candidate, "policy", None), "tokens_used", TokensUsed())


def _said_of(candidate: Candidate) -> list[str]:
    """What an endpoint did not do of what it was asked, as far as it has shown: each begins with its name."""
    policy = getattr(candidate, "policy", None)
    return [f"{candidate.model}: {note}" for note in getattr(policy, "notes", ())]


def _update_rule(candidate: Candidate, seconds: float) -> str:
    """What has to be done when a fact changes."""
    if candidate.kind == "given":
        return "as you do today"
    if getattr(candidate, "passages", 0):
        return "edit a document"
    return "edit the prompt" if candidate.kind == "prompt" else f"retrain, {duration(seconds)}"


def notes(candidate: Candidate) -> tuple[str, ...]:
    """What there is to say of a candidate beside its numbers."""
    details = getattr(candidate, "details", {})
    return tuple(f"{key}: {value}" for key, value in details.items() if not isinstance(value, Mapping))


def _curves(folder: Path, expression: str) -> list[dict[str, Any]]:
    """The records of training, of every link of the chain in turn."""
    return [
        {"technique": link, **record}
        for link in chain.folders(expression)
        for record in Run(folder / link).metrics()
        if "step" in record
    ]
