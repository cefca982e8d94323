"""The verdict over everything that finished: tests, money, recommendation, as one result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from posttrain.comparison import verdict
from posttrain.comparison.estimate import peak_memory_bytes
from posttrain.comparison.money import Prices, StatedCost, break_even, payback
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.runs import Run, read_json, write_json
from posttrain.types import Policy, Row, Task, UserError


@dataclass(frozen=True)
class Settings:
    """What is compared and under which prices.  `candidates` empty: the default for the task.  `on_trial` are endpoints
    that are being tried, and no system that the user runs."""

    candidates: tuple[str, ...] = ()
    prices: Prices = Prices()
    costs: Mapping[str, StatedCost] = field(default_factory=dict)  # by candidate
    volume_per_month: float | None = None
    margin: float = 0.02
    latency: bool = True
    on_trial: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises UserError for a volume that is none."""
        volume = self.volume_per_month
        if volume is not None and not 0 < volume < math.inf:
            raise UserError(f"{volume:g} is no number of requests", place="--volume", remedy="give a number above 0")


@dataclass
class Record:
    """What a comparison remembers while it runs."""

    results: list[CandidateResult] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)  # seconds by part
    notes: list[str] = field(default_factory=list)
    estimate_seconds: float | None = None
    estimate_memory_bytes: int | None = None


def precisions(policies: Mapping[str, Policy]) -> dict[str, str]:
    """In what each model is computed, as far as its engine says: float32, or bfloat16 (on a CPU that is its products
    with frozen weights).  An endpoint does not say."""
    said = {model: getattr(policy, "precision", "") for model, policy in policies.items()}
    return {model: precision for model, precision in said.items() if precision}


def conclude(
    task: Task,
    policies: Mapping[str, Policy],
    run: Run,
    settings: Settings,
    record: Record,
    *,
    yours: str | None,
) -> ComparisonResult:
    """Chooses on dev, tests on test, and says what to do.  Raises UserError when no candidate finished."""
    if not record.results:
        raise UserError("no candidate finished", place=str(run.folder), remedy="; ".join(record.notes) or "try again")
    results = record.results
    comparisons, recommendation = verdict.decide(results, yours=yours, margin=settings.margin)
    reference = verdict.choose_reference(results, yours, settings.margin)
    if reference is not None:
        low = {found.a: found.interval[0] for found in comparisons if found.family == "reference"}
        results = [_broken_even(result, reference, low.get(result.name), settings, run.seed) for result in results]
        comparisons, recommendation = verdict.decide(results, yours=yours, margin=settings.margin)  # now with money
    seeds = max([result.training_runs for result in results if result.kind == "weights"], default=1)
    return ComparisonResult(
        task=task.name,
        task_version=task.version,
        task_hash=task.hash,
        model=", ".join(policies),
        precision=precisions(policies),
        candidates=tuple(results),
        comparisons=tuple(comparisons),
        recommendation=recommendation,
        reference=reference.name if reference else None,
        yours=yours,
        margin=settings.margin,
        volume_per_month=settings.volume_per_month,
        ceiling=task.ceiling,
        detectable_difference=verdict.detectable(comparisons, len(task.rows("test")), task.scored_by),
        test_uses=count_test_use(run, task),
        run=str(run.folder),
        seed=run.seed,
        seeds=tuple(range(run.seed, run.seed + seeds)),
        estimate_seconds=record.estimate_seconds,
        actual_seconds=record.timings.get("total"),
        estimate_memory_bytes=record.estimate_memory_bytes,
        actual_memory_bytes=peak_memory_bytes(),
        timings=record.timings,
        notes=(*task.notes, *record.notes),
    )


def _broken_even(
    result: CandidateResult,
    reference: CandidateResult,
    low: float | None,
    settings: Settings,
    seed: int,
) -> CandidateResult:
    """The result with when it pays; the reference has nothing to pay back."""
    if low is None:
        return result
    even = break_even(reference.cost, result.cost, quality_low=low, margin=settings.margin, seed=seed)
    volume = settings.volume_per_month
    paid = (
        payback(reference.cost, result.cost, volume=volume, quality_low=low, margin=settings.margin, seed=seed)
        if volume
        else None
    )
    return replace(result, break_even=even, payback=paid)


def count_test_use(run: Run, task: Task) -> int:
    """How many runs in this folder of runs have looked at these test rows, this one included.

    They are the same rows whatever else of the task has changed.
    """
    path = run.folder.parent / "test_uses.json"
    uses: dict[str, list[str]] = read_json(path) if path.exists() else {}
    seen = uses.setdefault(_hash(task.rows("test")), [])
    if run.folder.name not in seen:
        seen.append(run.folder.name)
        write_json(path, uses)
    return len(seen)


def _hash(rows: Sequence[Row]) -> str:
    """SHA-256 of what is asked and wanted, in whatever order."""
    asked = sorted(json.dumps([[vars(said) for said in row.messages], row.target], sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()


def folder_name(name: str) -> str:
    """A name as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "+-_.@" else "_" for letter in name)
