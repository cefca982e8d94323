"""One candidate's way through a comparison: taught, judged, timed, priced, kept on disk.

    candidates/<name>/{result.json, dev.jsonl, test.jsonl, saved/, teaching/}

A candidate whose result.json is there is not redone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.conclude import Record, Settings, folder_name
from posttrain.comparison.latency import measure
from posttrain.comparison.money import Cost, device_cost, hosted_cost
from posttrain.comparison.results import CandidateResult
from posttrain.comparison.wording import duration
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.record import Evaluation
from posttrain.runs import SCHEMA, Budget, Run, read_json, write_json
from posttrain.techniques import _chain as chain
from posttrain.types import Candidate, Task, UserError

CURVE_SHARES = (0.25, 0.5)
"""Learning curves are drawn from these shares of the training rows, and all of them."""


class Bench:
    """Where candidates of one task are made and measured.  Results and times go into `record`."""

    def __init__(self, task: Task, run: Run, settings: Settings, record: Record) -> None:
        self.task, self.run, self.settings, self.record = task, run, settings, record

    def folder(self, name: str) -> Path:
        return self.run.folder / "candidates" / folder_name(name)

    def kept(self, name: str) -> CandidateResult | None:
        """The result of a candidate that finished before, if it did."""
        folder = self.folder(name)
        if not (folder / "result.json").exists():
            return None
        return CandidateResult.from_report(read_json(folder / "result.json"), Evaluation.read(folder / "test.jsonl"))

    async def taught(self, expression: str, name: str, start: Any, seconds: float | None) -> Candidate:
        """A candidate of this chain, taught within `seconds` (None: as long as it takes)."""
        budget = Budget(None if seconds is None else seconds / 60, self.run.budget.steps)
        run = Run(self.folder(name) / "teaching", seed=self.run.seed, budget=budget, on_progress=self.run.on_progress)
        return replace(await chain.teach(expression, start, self.task, run), name=name)  # type: ignore[type-var]

    async def judged(self, name: str, expression: str, candidate: Candidate, seconds: float) -> CandidateResult:
        """Evaluates, times and prices a candidate that took `seconds` to teach, and keeps everything."""
        folder, kind = self.folder(name), candidate.kind
        dev = None
        if not isinstance(candidate, GivenCandidate):
            with self.timed(f"{name}: dev"):
                dev = await evaluate(candidate, self.task, "dev", self.run)
            dev.write(folder / "dev.jsonl")
        with self.timed(f"{name}: test"):
            test = await evaluate(candidate, self.task, "test", self.run)
        test.write(folder / "test.jsonl")
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
            curves=tuple(_curves(folder / "teaching")),
            notes=_notes(candidate),
        )
        result = await self._measured(result, candidate)
        await candidate.save(folder / "saved")
        self.keep(result)
        return result

    def keep(self, result: CandidateResult) -> None:
        """Writes result.json: from now on the candidate is finished."""
        write_json(self.folder(result.name) / "result.json", {"schema": SCHEMA, **result.to_report()})

    async def _measured(self, result: CandidateResult, candidate: Candidate) -> CandidateResult:
        """Adds latency and cost.  The user's own system was answered elsewhere: neither is known."""
        if result.kind == "given" or not self.settings.latency:
            return result
        policy = getattr(candidate, "policy", None)
        remote = getattr(policy, "remote", False)
        if remote:
            policy.replies_path = None  # type: ignore[union-attr]  # a kept reply takes no time
        self.run.progress(f"{result.name}: latency", 0, 1)
        with self.timed(f"{result.name}: latency"):
            measured = await measure(candidate, self.task.rows("test"))
        attempts = result.evaluation.attempts
        cost: Cost | None
        if remote:
            policy.replies_path = self.run.folder / "replies.jsonl"  # type: ignore[union-attr]
            cost = hosted_cost(
                self.settings.prices,
                prompt_tokens=[attempt.prompt_tokens for attempt in attempts],
                completion_tokens=[attempt.completion_tokens for attempt in attempts],
            )
        else:
            cost = device_cost(
                self.settings.prices,
                one_off_seconds=result.training_seconds + result.search_seconds,
                request_seconds=measured.request_seconds,
            )
        return replace(result, latency=measured.latency, cost=cost)

    # ---- once more: other seeds, fewer rows

    async def more_seeds(self, result: CandidateResult, start: PolicyCandidate) -> CandidateResult:
        """Trains twice more with other seeds while there is time: one training run proves little."""
        scores, spent = [result.score], result.training_seconds
        for seed in (self.run.seed + 1, self.run.seed + 2):
            judging = self.record.timings.get(f"{result.name}: test", 0.0)
            if self.run.seconds_left is not None and self.run.seconds_left < 1.1 * (spent + judging):
                break
            with self.timed(f"{result.name}: seed {seed}"):
                run = Run(
                    self.folder(result.name) / f"seed-{seed}",
                    seed=seed,
                    on_progress=self.run.on_progress,
                    budget=Budget(spent / 60),
                )
                try:
                    scores.append(await self._test_score(result, self.task, start, run))
                except UserError as error:  # it is the table's to say, and no reason to lose what is finished
                    self.record.notes.append(f"{result.name} with seed {seed}: {error.message}")
        return replace(result, seed_scores=tuple(scores), training_runs=len(scores)) if len(scores) > 1 else result

    async def learning_curve(self, result: CandidateResult, start: PolicyCandidate | None) -> CandidateResult:
        """Teaches the same on a quarter and on half of the training rows, while there is time."""
        rows = self.task.rows("train")
        points = []
        for share in CURVE_SHARES:
            needed = 1.1 * (share * result.training_seconds + self.record.timings.get(f"{result.name}: test", 0.0))
            left = self.run.seconds_left
            if left is not None and left < needed and result.kind != "floor":  # a floor takes next to nothing
                return result
            some = rows[: max(1, round(share * len(rows)))]
            with self.timed(f"{result.name}: {len(some)} rows"):
                run = Run(
                    self.folder(result.name) / f"rows-{len(some)}",
                    seed=self.run.seed,
                    on_progress=self.run.on_progress,
                    budget=Budget(max(1.0, share * result.training_seconds) / 60),
                )
                task = replace(self.task, splits={**self.task.splits, "train": some})
                try:
                    points.append((len(some), await self._test_score(result, task, start, run)))
                except UserError as error:
                    self.record.notes.append(f"no learning curve of {result.name}: {error.message}")
                    return result
        return replace(result, learning_curve=(*points, (len(rows), result.score)))

    async def _test_score(self, result: CandidateResult, task: Task, start: PolicyCandidate | None, run: Run) -> float:
        candidate = await chain.teach(result.technique, start, task, run)  # type: ignore[arg-type]
        score = (await evaluate(candidate, task, "test", self.run)).score
        if isinstance(candidate, PolicyCandidate) and candidate.kind == "weights":
            candidate.policy.drop()
        return score

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


def _update_rule(candidate: Candidate, seconds: float) -> str:
    """What has to be done when a fact changes."""
    if candidate.kind == "given":
        return "as you do today"
    if getattr(candidate, "passages", 0):
        return "edit a document"
    return "edit the prompt" if candidate.kind == "prompt" else f"retrain, {duration(seconds)}"


def _notes(candidate: Candidate) -> tuple[str, ...]:
    details = getattr(candidate, "details", {})
    return tuple(f"{key}: {value}" for key, value in details.items() if not isinstance(value, Mapping))


def _curves(folder: Path) -> list[dict[str, Any]]:
    """The records of training, of every technique of the chain."""
    return [
        record
        for path in sorted(folder.glob("*/metrics.jsonl"))
        for record in Run(path.parent).metrics()
        if "step" in record
    ]
