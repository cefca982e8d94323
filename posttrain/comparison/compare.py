"""Compare: every way of teaching one task, one after the other, each kept on disk as it finishes.

    runs/<id>/config.json  report.json  report.html  candidates/<name>/{result.json, dev.jsonl, test.jsonl, saved/}

A candidate whose result.json is there is not redone, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison import html, verdict
from posttrain.comparison.estimate import Speed, calibrate, forecast
from posttrain.comparison.latency import measure
from posttrain.comparison.money import Cost, Prices, break_even, device_cost, hosted_cost, payback
from posttrain.comparison.plan import default_candidates, ordered, share
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.wording import duration
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.record import Evaluation
from posttrain.runs import SCHEMA, Budget, Run, read_json, write_json
from posttrain.techniques import _chain as chain
from posttrain.types import Candidate, Policy, Task, UserError


@dataclass(frozen=True)
class Settings:
    """What is compared and under which prices.  `candidates` empty: the default for the task."""

    candidates: tuple[str, ...] = ()
    prices: Prices = Prices()
    volume_per_month: float | None = None
    margin: float = 0.02
    latency: bool = True


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, as it happens."""

    result: Callable[[CandidateResult, float | None], None] = lambda *_: None  # (result, seconds left)
    say: Callable[[str], None] = lambda _: None


@dataclass
class Comparing:
    """One comparison under way."""

    task: Task
    policies: Mapping[str, Policy]
    given: Sequence[GivenCandidate]
    run: Run
    settings: Settings
    listener: Listener
    results: list[CandidateResult] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    expected: dict[str, float] = field(default_factory=dict)  # seconds, by candidate
    estimate_seconds: float | None = None

    async def all(self) -> ComparisonResult:
        """Runs the whole comparison and writes report.json and report.html."""
        started = time.monotonic()
        for candidate in self.given:
            await self._one(candidate.name, "given", functools.partial(_ready, candidate), None)
        for number, (model, policy) in enumerate(self.policies.items()):
            await self._one_model(model, policy, first=number == 0)
        seeded = await self._more_seeds()
        self.timings["total"] = time.monotonic() - started
        comparison = self.finish(seeded)
        write(comparison, self.run.folder)
        return comparison

    # ---- candidates

    async def _one_model(self, model: str, policy: Policy, *, first: bool) -> None:
        trainable = not getattr(policy, "remote", False)
        start = PolicyCandidate(model, "prompt", policy, self.task.instructions, self.task.output)
        wanted = list(self.settings.candidates) or default_candidates(self.task, trainable=trainable)
        expressions = [expression for expression in ordered(wanted) if first or chain.kind(expression) != "floor"]
        if not trainable:
            expressions = self._only_prompts(expressions, model)
        teaching = await self._share_time(start, expressions) if trainable else dict.fromkeys(expressions)
        for expression, seconds in teaching.items():
            name = (
                expression if len(self.policies) == 1 or chain.kind(expression) == "floor" else f"{expression}@{model}"
            )

            def taught(expression: str = expression, name: str = name, seconds: float | None = seconds) -> Any:
                return self._teach(expression, name, start, seconds)

            await self._one(name, expression, taught, self._still_to_come(list(teaching), expression))

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
        done = [expression for expression in expressions if self._kept(expression)]
        to_do = [expression for expression in expressions if expression not in done]
        if all(chain.kind(expression) == "floor" for expression in to_do):
            return dict.fromkeys(expressions)
        self.run.progress("calibrating", 0, 1)
        with self._timed("calibration"):
            speed = await calibrate(start, self.task)
            forecasts = {
                name: await forecast(name, start, self.task, speed, latency=self.settings.latency) for name in to_do
            }
        teaching, left_out = share(self.run.seconds_left, forecasts)
        for expression, why in left_out.items():
            self.notes.append(f"{expression} {why}; give more --minutes, or name it in --candidates")
        given = {name: forecasts[name].teaching if seconds is None else seconds for name, seconds in teaching.items()}
        self.expected = {name: seconds + forecasts[name].judging for name, seconds in given.items()}
        self.estimate_seconds = (self.estimate_seconds or 0.0) + sum(self.expected.values())
        self.listener.say(_estimate_sentence(sum(self.expected.values()), speed, left_out))
        return {name: teaching.get(name) for name in expressions if name in done or name in teaching}

    def _still_to_come(self, names: Sequence[str], current: str) -> float | None:
        later = names[names.index(current) + 1 :]
        return sum(self.expected.get(name, 0.0) for name in later) if self.expected else None

    async def _teach(self, expression: str, name: str, start: PolicyCandidate, seconds: float | None) -> Candidate:
        minutes = None if seconds is None else seconds / 60
        run = Run(
            self._folder(name) / "teaching",
            seed=self.run.seed,
            budget=Budget(minutes, self.run.budget.steps),
            on_progress=self.run.on_progress,
        )
        return _named(await chain.teach(expression, start, self.task, run), name)

    def _folder(self, name: str) -> Path:
        return self.run.folder / "candidates" / folder_name(name)

    def _kept(self, name: str) -> bool:
        return (self._folder(name) / "result.json").exists()

    async def _one(self, name: str, expression: str, make: Callable[[], Any], left: float | None) -> None:
        """Teaches, judges and measures one candidate, or takes its result from disk."""
        folder = self._folder(name)
        if self._kept(name):
            result = CandidateResult.from_report(
                read_json(folder / "result.json"), Evaluation.read(folder / "test.jsonl")
            )
            self.results.append(result)
            self.listener.result(result, left)
            return
        with self._timed(f"{name}: teaching") as clock:
            try:
                candidate = await make()
            except UserError as error:
                if expression in self.settings.candidates:
                    raise
                self.notes.append(f"{name} left out: {error.message}")
                self.listener.say(self.notes[-1])
                return
        result = await self._judge(name, expression, candidate, clock.seconds)
        await candidate.save(folder / "saved")
        result.evaluation.write(folder / "test.jsonl")
        write_json(folder / "result.json", {"schema": SCHEMA, **result.to_report()})
        self.results.append(result)
        self.listener.result(result, left)

    async def _judge(self, name: str, expression: str, candidate: Candidate, seconds: float) -> CandidateResult:
        folder = self._folder(name)
        with self._timed(f"{name}: dev"):
            dev = None
            if not isinstance(candidate, GivenCandidate):
                dev = await evaluate(candidate, self.task, "dev", self.run)
                dev.write(folder / "dev.jsonl")
        with self._timed(f"{name}: test"):
            test = await evaluate(candidate, self.task, "test", self.run)
        details = getattr(candidate, "details", {}).get("training", {})
        kind = candidate.kind
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
            trained_tokens=int(details.get("trained_tokens", 0)),
            training_runs=1 if kind == "weights" else 0,
            update_rule=_update_rule(candidate, seconds),
            curves=tuple(_curve(folder / "teaching")),
            notes=_notes(candidate),
        )
        return await self._measured(result, candidate)

    async def _measured(self, result: CandidateResult, candidate: Candidate) -> CandidateResult:
        """Adds latency and cost.  The user's own system was answered elsewhere: neither is known."""
        if result.kind == "given" or not self.settings.latency:
            return result
        with self._timed(f"{result.name}: latency"):
            self.run.progress(f"{result.name}: latency", 0, 1)
            measured = await measure(candidate, self.task.rows("test"))
        attempts = result.evaluation.attempts
        cost: Cost | None
        if isinstance(candidate, PolicyCandidate) and getattr(candidate.policy, "remote", False):
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

    # ---- after the candidates

    async def _more_seeds(self) -> dict[str, tuple[float, ...]]:
        """Trains the best taught candidate twice more when there is time: one training run proves little."""
        taught = [result for result in self.results if result.kind == "weights" and result.dev_score is not None]
        if not taught or self.run.budget.minutes is None:
            return {}
        best = max(taught, key=lambda result: result.dev_score or 0.0)
        if best.seed_scores or len(self.policies) != 1:
            return {}
        spent = self.timings.get(f"{best.name}: teaching", 0.0) + self.timings.get(f"{best.name}: test", 0.0)
        policy = next(iter(self.policies.values()))
        start = PolicyCandidate(best.model, "prompt", policy, self.task.instructions, self.task.output)
        scores = [best.score]
        for seed in (self.run.seed + 1, self.run.seed + 2):
            if not spent or (self.run.seconds_left or 0.0) < spent * 1.1:
                break
            with self._timed(f"{best.name}: seed {seed}"):
                run = Run(
                    self._folder(best.name) / f"seed-{seed}",
                    seed=seed,
                    on_progress=self.run.on_progress,
                    budget=Budget(minutes=self.timings[f"{best.name}: teaching"] / 60),
                )
                candidate = _named(await chain.teach(best.technique, start, self.task, run), best.name)
                scores.append((await evaluate(candidate, self.task, "test", self.run)).score)
        return {best.name: tuple(scores)} if len(scores) > 1 else {}

    def finish(self, seeded: Mapping[str, tuple[float, ...]]) -> ComparisonResult:
        """The verdict over everything that finished."""
        if not self.results:
            raise UserError(
                "no candidate finished", place=str(self.run.folder), remedy="; ".join(self.notes) or "try again"
            )
        results = [
            replace(result, seed_scores=seeded[result.name], training_runs=len(seeded[result.name]))
            if result.name in seeded
            else result
            for result in self.results
        ]
        yours = self.given[0].name if self.given else None
        comparisons, recommendation = verdict.decide(results, given=yours, margin=self.settings.margin)
        reference = verdict.choose_reference(results, yours, self.settings.margin)
        low = {found.a: found.interval[0] for found in comparisons if found.family == "reference"}
        if reference is not None:
            results = [self._broken_even(result, reference, low.get(result.name)) for result in results]
            comparisons, recommendation = verdict.decide(
                results, given=yours, margin=self.settings.margin
            )  # money seen
        n = len(self.task.rows("test"))
        return ComparisonResult(
            task=self.task.name,
            task_version=self.task.version,
            task_hash=self.task.hash,
            model=", ".join(self.policies),
            candidates=tuple(results),
            comparisons=tuple(comparisons),
            recommendation=recommendation,
            reference=reference.name if reference else None,
            margin=self.settings.margin,
            volume_per_month=self.settings.volume_per_month,
            ceiling=self.task.ceiling,
            detectable_difference=verdict.detectable(comparisons, n),
            test_uses=_count_test_use(self.run, self.task),
            seed=self.run.seed,
            seeds=tuple(range(self.run.seed, self.run.seed + max(map(len, seeded.values()), default=1))),
            estimate_seconds=self.estimate_seconds,
            actual_seconds=self.timings.get("total"),
            timings=self.timings,
            notes=(*self.task.notes, *self.notes),
        )

    def _broken_even(self, result: CandidateResult, reference: CandidateResult, low: float | None) -> CandidateResult:
        if low is None or result.kind == "given":
            return result
        even = break_even(reference.cost, result.cost, quality_low=low, margin=self.settings.margin, seed=self.run.seed)
        volume = self.settings.volume_per_month
        paid = (
            payback(
                reference.cost,
                result.cost,
                volume=volume,
                quality_low=low,
                margin=self.settings.margin,
                seed=self.run.seed,
            )
            if volume
            else None
        )
        return replace(result, break_even=even, payback=paid)

    def _timed(self, part: str) -> _Clock:
        return _Clock(self.timings, part)


async def compare(
    task: Task,
    policies: Mapping[str, Policy],
    run: Run,
    settings: Settings = Settings(),
    *,
    given: Sequence[GivenCandidate] = (),
    listener: Listener = Listener(),
) -> ComparisonResult:
    """Compares every candidate on one task; the result is also in the run's folder.  Raises UserError."""
    return await Comparing(task, policies, given, run, settings, listener).all()


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
    report = read_json(folder / "report.json")
    evaluations = [
        Evaluation.read(folder / "candidates" / folder_name(entry["name"]) / "test.jsonl")
        for entry in report["candidates"]
    ]
    return ComparisonResult.from_report(report, evaluations)


def folder_name(name: str) -> str:
    """A name as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "+-_.@" else "_" for letter in name)


class _Clock:
    """Times a `with` block into a mapping."""

    def __init__(self, timings: dict[str, float], part: str) -> None:
        self.timings, self.part, self.seconds = timings, part, 0.0

    def __enter__(self) -> _Clock:
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self.started
        self.timings[self.part] = round(self.seconds, 2)


async def _ready(candidate: Candidate) -> Candidate:
    return candidate


def _named(candidate: Any, name: str) -> Candidate:
    return replace(candidate, name=name)


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


def _curve(folder: Path) -> list[dict[str, Any]]:
    """The records of training, of every technique of the chain."""
    return [
        record
        for path in sorted(folder.glob("*/metrics.jsonl"))
        for record in Run(path.parent).metrics()
        if "step" in record
    ]


def _estimate_sentence(seconds: float, speed: Speed, left_out: Mapping[str, str]) -> str:
    extra = f"; {', '.join(left_out)} left out to stay in the budget" if left_out else ""
    return f"{duration(seconds)}, {speed.memory_bytes / 1e9:.1f} GB; Ctrl-C keeps what is done{extra}"


def _count_test_use(run: Run, task: Task) -> int:
    """How often comparisons in this folder of runs have looked at this test split, this one included."""
    path = run.folder.parent / "test_uses.json"
    uses: dict[str, list[str]] = read_json(path) if path.exists() else {}
    seen = uses.setdefault(task.hash, [])
    if run.folder.name not in seen:
        seen.append(run.folder.name)
        write_json(path, uses)
    return len(seen)
