"""What a verdict is made from: the dev winner, its test against each other, and the order of dev among those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from posttrain.comparison.results import CandidateResult, Comparison


@dataclass(frozen=True)
class Case:
    """What is known when the verdict is written.  `against`: each other candidate's name to the winner's test on it.

    `yours` is the system that the user runs: one whose answers were given, or an endpoint; `against_yours` each other
    candidate's name to its test on that.
    """

    winner: CandidateResult
    reference: CandidateResult | None
    yours: CandidateResult | None
    results: tuple[CandidateResult, ...]
    against: Mapping[str, Comparison]
    against_yours: Mapping[str, Comparison]
    margin: float

    @property
    def others(self) -> list[CandidateResult]:
        return [result for result in self.results if result is not self.winner]

    @property
    def shown_better(self) -> list[CandidateResult]:
        """Those that test shows better than the winner, the best on dev first; given ones, which have no dev, last."""
        return sorted((other for other in self.others if self.against[other.name].word == "worse"), key=by_dev)

    def best(self, *kinds: str) -> CandidateResult | None:
        """The best of the others of these kinds, chosen on dev."""
        of_kind = [other for other in self.others if other.kind in kinds and other.dev_score is not None]
        return min(of_kind, key=by_dev, default=None)

    def unbeaten(self, kind: str) -> CandidateResult | None:
        """The best of a kind on dev, where the winner is not shown better than it."""
        rival = self.best(kind)
        return rival if rival is not None and self.against[rival.name].word != "better" else None

    @property
    def unbeaten_floor(self) -> CandidateResult | None:
        """The same of the floors, for a winner that is none."""
        return self.unbeaten("floor") if self.winner.kind != "floor" else None

    def as_good(self, other: CandidateResult) -> bool:
        """Whether test rules out that the winner is better than another by the margin."""
        return self.against[other.name].interval[1] < self.margin


def by_dev(result: CandidateResult) -> float:
    """Sorts the best on dev first, and what has no dev score last."""
    return float("inf") if result.dev_score is None else -result.dev_score
