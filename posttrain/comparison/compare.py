"""Compare: every way of teaching one task, one after the other, on the same test rows.

    runs/<id>/config.json  report.json  report.html  candidates/<name>/...

Finished candidates are kept, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison import html
from posttrain.comparison.bench import Bench
from posttrain.comparison.conclude import Record, Settings, conclude, folder_name
from posttrain.comparison.estimate import Speed, calibrate, forecast
from posttrain.comparison.plan import default_candidates, ordered, share
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.wording import duration
from posttrain.evaluation.record import Evaluation
from posttrain.runs import Run, read_json, write_json
from posttrain.techniques import _chain as chain
from posttrain.types import Policy, Task, UserError


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, as it happens: `result` with the seconds that are left, `say` in words."""

    result: Callable[[CandidateResult, float | None], None] = lambda _, __: None
    say: Callable[[str], None] = lambda _: None


async def compare(
    task: Task,
    policies: Mapping[str, Policy],
    run: Run,
    settings: Settings = Settings(),
    *,
    given: Sequence[GivenCandidate] = (),
    listener: Listener = Listener(),
) -> ComparisonResult:
    """Compares every candidate on one task, and writes the report into the run's folder.

    `policies` are base models by name; with none, only floors and the given systems are compared.  Raises UserError.
    """
    comparing = Comparing(task, policies, run, settings, listener)
    started = time.monotonic()
    for system in given:
        await comparing.one(system.name, "given", system, None, None)
    for number, (model, policy) in enumerate(policies.items()):
        await comparing.one_model(model, policy, with_floors=number == 0)
    if not policies:
        await comparing.floors_only()
    await comparing.repeat()
    comparing.record.timings["total"] = time.monotonic() - started
    result = conclude(task, list(policies), run, settings, comparing.record, yours=given[0].name if given else None)
    write(result, run.folder)
    return result


class Comparing:
    """One comparison under way."""

    def __init__(
        self,
        task: Task,
        policies: Mapping[str, Policy],
        run: Run,
        settings: Settings,
        listener: Listener,
    ) -> None:
        self.task, self.policies, self.run, self.settings, self.listener = task, policies, run, settings, listener
        self.record = Record()
        self.bench = Bench(task, run, settings, self.record)
        self.expected: dict[str, float] = {}  # seconds still to come, by candidate

    async def one_model(self, model: str, policy: Policy, *, with_floors: bool) -> None:
        """All candidates on one base model, or on an endpoint (which can only be prompted)."""
        trainable = not getattr(policy, "remote", False)
        start = self._start(model)
        wanted = list(self.settings.candidates) or default_candidates(self.task, trainable=trainable)
        expressions = [name for name in ordered(wanted) if with_floors or chain.kind(name) != "floor"]
        if not trainable:
            expressions = self._only_prompts(expressions, model)
        teaching = await self._share_time(start, expressions) if trainable else dict.fromkeys(expressions)
        for expression, seconds in teaching.items():
            shared = len(self.policies) == 1 or chain.kind(expression) == "floor"
            name = expression if shared else f"{expression}@{model}"
            self.expected.pop(expression, None)
            await self.one(name, expression, None, start, seconds)

    async def floors_only(self) -> None:
        """Without a model there are floors, and what is asked for must be one."""
        wanted = list(self.settings.candidates) or default_candidates(self.task, trainable=False)
        for expression in ordered(wanted):
            if chain.kind(expression) == "floor":
                await self.one(expression, expression, None, None, None)

    async def one(
        self,
        name: str,
        expression: str,
        ready: GivenCandidate | None,
        start: PolicyCandidate | None,
        seconds: float | None,
    ) -> None:
        """Teaches (unless it is `ready`) and judges one candidate, or takes its result from disk."""
        result = self.bench.kept(name)
        if result is None:
            with self.bench.timed(f"{name}: teaching") as clock:
                try:
                    candidate = ready or await self.bench.taught(expression, name, start, seconds)
                except UserError as error:
                    if expression in self.settings.candidates:
                        raise
                    self._note(f"{name} left out: {error.message}")
                    return
            result = await self.bench.judged(name, expression, candidate, clock.seconds)
        self.record.results.append(result)
        self.listener.result(result, sum(self.expected.values()) if self.expected else None)

    async def repeat(self) -> None:
        """Spends what time is left on learning curves and on other seeds of the best taught candidate."""
        results = self.record.results
        taught = [result for result in results if result.kind == "weights"]
        best = max(taught, key=lambda result: result.dev_score or 0.0, default=None)
        for i, result in enumerate(results):
            known = result.learning_curve or result.seed_scores
            if known or (result.kind != "floor" and (result is not best or self.run.budget.minutes is None)):
                continue
            start = self._start(result.model) if result.model else None
            repeated = result
            if start is not None:
                repeated = await self.bench.more_seeds(repeated, start)
            if result.technique != "constant":
                repeated = await self.bench.learning_curve(repeated, start)
            results[i] = repeated
            self.bench.keep(repeated)

    def _start(self, model: str) -> PolicyCandidate:
        return PolicyCandidate(model, "prompt", self.policies[model], self.task.instructions, self.task.output)

    def _only_prompts(self, expressions: Sequence[str], model: str) -> list[str]:
        refused = [expression for expression in expressions if chain.kind(expression) == "weights"]
        if refused and self.settings.candidates:
            raise UserError(
                f"{', '.join(refused)} would train {model}, which is an endpoint: it can only be prompted",
                place="--candidates",
                remedy="leave it out, or give a local --model",
            )
        return [expression for expression in expressions if expression not in refused]

    async def _share_time(self, start: PolicyCandidate, expressions: Sequence[str]) -> dict[str, float | None]:
        """Calibrates, says how long it will take, and gives each candidate its share of the time there is."""
        to_do = [name for name in expressions if self.bench.kept(name) is None]
        if all(chain.kind(name) == "floor" for name in to_do):
            return dict.fromkeys(expressions)
        self.run.progress("calibrating", 0, 1)
        with self.bench.timed("calibration"):
            speed = await calibrate(start, self.task)
            forecasts = {
                name: await forecast(name, start, self.task, speed, latency=self.settings.latency) for name in to_do
            }
        teaching, left_out = share(self.run.seconds_left, forecasts)
        given = {name: forecasts[name].teaching if seconds is None else seconds for name, seconds in teaching.items()}
        self.expected = {name: seconds + forecasts[name].judging for name, seconds in given.items()}
        estimate = sum(self.expected.values())
        self.record.estimate_seconds = (self.record.estimate_seconds or 0.0) + estimate
        self.listener.say(_estimate_sentence(estimate, speed))
        for name, why in left_out.items():
            self._note(f"{name} {why}; give more --minutes, or fewer --candidates")
        return {name: teaching.get(name) for name in expressions if name not in left_out}

    def _note(self, text: str) -> None:
        self.record.notes.append(text)
        self.listener.say(text)


def write(comparison: ComparisonResult, folder: Path) -> None:
    """Writes report.json and report.html."""
    write_json(folder / "report.json", comparison.to_report())
    html.render(comparison, [result.evaluation for result in comparison.candidates], folder / "report.html")


def read(folder: Path) -> ComparisonResult:
    """The comparison in a run's folder.  Raises UserError when there is none, or an unfinished one."""
    if not (folder / "report.json").exists():
        raise UserError(
            "this run has no report: it is no comparison, or was stopped before it ended",
            place=str(folder),
            remedy=f"go on with: posttrain compare --resume {folder}",
        )
    report: Any = read_json(folder / "report.json")
    evaluations = [
        Evaluation.read(folder / "candidates" / folder_name(entry["name"]) / "test.jsonl")
        for entry in report["candidates"]
    ]
    return ComparisonResult.from_report(report, evaluations)


def _estimate_sentence(seconds: float, speed: Speed) -> str:
    return f"{duration(seconds)}, {speed.memory_bytes / 1e9:.1f} GB; Ctrl-C keeps what is done"
