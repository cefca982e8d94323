"""What a comparison found: one result per candidate, the tests between them, the recommendation.

`to_report` gives the document other programs read (report.json); `from_report` reads it back beside the
evaluations of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from posttrain.comparison.money import NOTHING_TO_PAY_BACK, BreakEven, Cost
from posttrain.evaluation.record import Evaluation
from posttrain.evaluation.statistics import MARGIN, Interval, Word
from posttrain.runs import SCHEMA
from posttrain.types import Kind, ScoredBy, UserError

Outcome = Literal["winner", "keep what you have", "a floor wins", "no clear winner"]

SIMPLEST_FIRST: tuple[Kind, ...] = ("given", "floor", "prompt", "weights")
"""Kinds by how little they ask of whoever runs them: what runs already, no model, a prompt, weights of one's own."""


@dataclass(frozen=True)
class Latency:
    """Seconds per request after warm-up: one at a time (p50, p95), and under 8 users at once (p95)."""

    p50: float
    p95: float
    p95_under_8: float | None = None


NOT_MEASURED = dict.fromkeys(field.name for field in fields(Latency))
"""The latency, in a report, of what was answered elsewhere."""


@dataclass(frozen=True)
class CandidateResult:
    """One candidate: how good, how fast, what it took.  `evaluation` is on test; seconds are what it alone adds."""

    name: str
    label: str  # in plain words: "examples in the prompt"
    technique: str
    model: str
    kind: Kind
    evaluation: Evaluation
    dev_score: float | None = None
    latency: Latency | None = None
    training_seconds: float = 0.0
    search_seconds: float = 0.0
    trained_tokens: int = 0
    training_runs: int = 0
    seed_scores: tuple[float, ...] = ()  # test scores of training runs with other seeds, this one's first
    cost: Cost | None = None
    break_even: BreakEven | None = None
    payback: BreakEven | None = None
    update_rule: str = ""  # when a fact changes: "edit a document", "retrain, 5 min"
    learning_curve: tuple[tuple[int, float], ...] = ()  # (labelled rows, test score)
    curves: tuple[Mapping[str, Any], ...] = ()  # training records: technique, step, loss, dev_score ...
    notes: tuple[str, ...] = ()
    suspicions: tuple[str, ...] = ()  # what its score may owe to something else than the task

    @property
    def score(self) -> float:
        return self.evaluation.score

    def to_report(self) -> dict[str, Any]:
        """This candidate's entry in report.json."""
        evaluation, cost = self.evaluation, self.cost
        return {
            "name": self.name,
            "label": self.label,
            "technique": self.technique,
            "model": self.model,
            "kind": self.kind,
            "score": evaluation.score,
            "interval": list(evaluation.interval),
            "n": evaluation.n,
            "dev_score": self.dev_score,
            "valid_rate": evaluation.valid_rate,
            "error_rate": evaluation.error_rate,
            "parts": evaluation.parts(),
            "prompt_tokens_per_request": evaluation.prompt_tokens,
            "completion_tokens_per_request": evaluation.completion_tokens,
            "latency_seconds": asdict(self.latency) if self.latency else NOT_MEASURED,
            "training_seconds": self.training_seconds,
            "search_seconds": self.search_seconds,
            "trained_tokens": self.trained_tokens,
            "training_runs": self.training_runs,
            "seed_scores": list(self.seed_scores),
            "one_off_cost": cost.one_off if cost else None,
            "cost_per_request": cost.per_request if cost else None,
            "cost_per_1000_requests": cost.per_request * 1000 if cost else None,
            "standing_cost_per_month": cost.standing_per_month if cost else None,
            "cost_unit": cost.unit if cost else None,
            "cost_rows": list(cost.rows) if cost else [],
            "requests_to_break_even": asdict(self.break_even or NOTHING_TO_PAY_BACK),
            "months_to_pay_back": asdict(self.payback) if self.payback else None,
            "when_a_fact_changes": self.update_rule,
            "slices": [asdict(part) for part in evaluation.slices()],
            "learning_curve": [list(point) for point in self.learning_curve],
            "curves": [dict(record) for record in self.curves],
            "notes": list(self.notes),
            "suspicions": list(self.suspicions),
        }

    @staticmethod
    def from_report(entry: Mapping[str, Any], evaluation: Evaluation) -> CandidateResult:
        """Reads an entry back."""
        cost = (
            None
            if entry["cost_unit"] is None
            else Cost(
                entry["one_off_cost"],
                entry["cost_per_request"],
                entry["standing_cost_per_month"],
                entry["cost_unit"],
                tuple(entry["cost_rows"]),
            )
        )
        latency = entry["latency_seconds"]
        return CandidateResult(
            **{
                name: entry[name]
                for name in (
                    "name",
                    "label",
                    "technique",
                    "model",
                    "kind",
                    "dev_score",
                    "training_seconds",
                    "search_seconds",
                    "trained_tokens",
                    "training_runs",
                )
            },
            evaluation=evaluation,
            latency=Latency(**latency) if latency != NOT_MEASURED else None,
            seed_scores=tuple(entry["seed_scores"]),
            cost=cost,
            break_even=_break_even(entry["requests_to_break_even"]),
            payback=_break_even(entry["months_to_pay_back"]),
            update_rule=entry["when_a_fact_changes"],
            learning_curve=tuple((n, score) for n, score in entry["learning_curve"]),
            curves=tuple(entry["curves"]),
            notes=tuple(entry["notes"]),
            suspicions=tuple(entry.get("suspicions", ())),
        )


@dataclass(frozen=True)
class Comparison:
    """Two candidates on the same test rows: `difference` is a's score minus b's, with its 95 % interval.

    `p_value_adjusted` is Holm's within the `family`: the winner against every other candidate, or every other
    candidate against the reference.
    """

    a: str
    b: str
    family: Literal["winner", "reference"]
    difference: float
    interval: Interval
    p_value: float
    p_value_adjusted: float
    test: str
    word: Word
    discordance: float


@dataclass(frozen=True)
class Recommendation:
    """What to do, and why, in two sentences that name their numbers."""

    candidate: str
    outcome: Outcome
    sentences: tuple[str, str]

    @property
    def reason(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True)
class ComparisonResult:
    """Everything a comparison found.  `reference` is `yours`, what the user runs, else the best prompt on dev."""

    task: str
    task_version: str
    task_hash: str
    model: str
    candidates: tuple[CandidateResult, ...]
    comparisons: tuple[Comparison, ...]
    recommendation: Recommendation
    precision: Mapping[str, str] = field(default_factory=dict)  # in what each model was computed, where that is known
    reference: str | None = None
    yours: str | None = None
    margin: float = MARGIN
    volume_per_month: float | None = None
    ceiling: float | None = None  # agreement of independent labellers, share of rows
    detectable_difference: float | None = None
    test_uses: int = 1
    run: str = ""  # the folder of the run
    seed: int = 0
    seeds: tuple[int, ...] = ()
    estimate_seconds: float | None = None
    actual_seconds: float | None = None
    estimate_memory_bytes: int | None = None  # the most main memory held, by the calibration and in the end
    actual_memory_bytes: int | None = None
    timings: Mapping[str, float] | None = None  # seconds by part of the run
    notes: tuple[str, ...] = ()

    @property
    def suspicions(self) -> list[str]:
        """What scores may owe to something else than the task, in a sentence each, the best candidate first."""
        return [f"Look at {result.name}: {told}." for result in self.ranked for told in result.suspicions]

    @property
    def scored_by(self) -> ScoredBy:
        """What the task's score is."""
        return self.candidates[0].evaluation.scored_by if self.candidates else "right"

    @property
    def ranked(self) -> list[CandidateResult]:
        """The candidates, best test score first."""
        return sorted(self.candidates, key=lambda result: -result.score)

    def candidate(self, name: str) -> CandidateResult:
        """The result of that name.  Raises UserError."""
        for result in self.candidates:
            if result.name == name:
                return result
        raise UserError(f"no candidate called {name!r}", remedy=f"known: {', '.join(r.name for r in self.candidates)}")

    def against_reference(self, name: str) -> Comparison | None:
        """The comparison of a candidate with the reference; None for the reference itself."""
        return next((c for c in self.comparisons if c.family == "reference" and c.a == name), None)

    def to_report(self) -> dict[str, Any]:
        """The document report.json: the fields others rely on first, ours beside them."""
        return {
            "schema": SCHEMA,
            "task": {"name": self.task, "version": self.task_version, "hash": self.task_hash},
            "scored_by": self.scored_by,
            "model": self.model,
            "precision": dict(self.precision),
            "candidates": [result.to_report() for result in self.candidates],
            "comparisons": [{**asdict(c), "interval": list(c.interval)} for c in self.comparisons],
            "recommendation": {**asdict(self.recommendation), "reason": self.recommendation.reason},
            "reference": self.reference,
            "yours": self.yours,
            "margin": self.margin,
            "volume_per_month": self.volume_per_month,
            "ceiling": self.ceiling,
            "detectable_difference": self.detectable_difference,
            "test_uses": self.test_uses,
            "run": self.run,
            "seed": self.seed,
            "seeds": list(self.seeds),
            "estimate_seconds": self.estimate_seconds,
            "actual_seconds": self.actual_seconds,
            "estimate_memory_bytes": self.estimate_memory_bytes,
            "actual_memory_bytes": self.actual_memory_bytes,
            "timings": dict(self.timings or {}),
            "notes": list(self.notes),
        }

    @staticmethod
    def from_report(report: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> ComparisonResult:
        """Reads report.json back; `evaluations` are the test records of the same run.  Raises UserError."""
        if report.get("schema") != SCHEMA:
            raise UserError(
                f"a report of schema {report.get('schema')}, this version reads {SCHEMA}",
                place="report.json",
                remedy="run the comparison again",
            )
        by_name = {evaluation.candidate: evaluation for evaluation in evaluations}
        missing = [entry["name"] for entry in report["candidates"] if entry["name"] not in by_name]
        if missing:
            raise UserError(
                f"no evaluation of {', '.join(missing)}",
                place="report.json",
                remedy="run the comparison again: finished candidates are not redone",
            )
        same = (
            "model",
            "reference",
            "yours",
            "margin",
            "volume_per_month",
            "ceiling",
            "detectable_difference",
            "test_uses",
            "run",
            "seed",
            "estimate_seconds",
            "actual_seconds",
            "estimate_memory_bytes",
            "actual_memory_bytes",
            "timings",
        )
        return ComparisonResult(
            task=report["task"]["name"],
            task_version=report["task"]["version"],
            task_hash=report["task"]["hash"],
            candidates=tuple(CandidateResult.from_report(e, by_name[e["name"]]) for e in report["candidates"]),
            comparisons=tuple(Comparison(**{**c, "interval": _pair(c["interval"])}) for c in report["comparisons"]),
            recommendation=_recommendation(report["recommendation"]),
            precision=report.get("precision", {}),  # which older reports do not say
            seeds=tuple(report["seeds"]),
            notes=tuple(report["notes"]),
            **{name: report[name] for name in same},
        )


def _recommendation(entry: Mapping[str, Any]) -> Recommendation:
    first, second = entry["sentences"]
    return Recommendation(entry["candidate"], entry["outcome"], (first, second))


def _break_even(entry: Mapping[str, Any] | None) -> BreakEven | None:
    if entry is None:
        return None
    found = BreakEven(entry["value"], entry["interval"] and _pair(entry["interval"]), entry["verdict"])
    return None if found == NOTHING_TO_PAY_BACK else found


def _pair(values: Sequence[float]) -> Interval:
    low, high = values
    return low, high
