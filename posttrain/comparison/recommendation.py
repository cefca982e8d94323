"""The verdict: two sentences that say what to do and name the reason.

The dev winner must be shown better, on test, than whatever is simpler than it: the system that runs already, the
best floor and, where weights were trained, the best prompt.  Where it is not, the verdict says so instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.comparison.money import BreakEven
from posttrain.comparison.results import SIMPLEST_FIRST, CandidateResult, Comparison, Outcome, Recommendation
from posttrain.comparison.wording import duration, points, score_of_rows, signed, signed_span
from posttrain.evaluation.statistics import rows_needed


@dataclass(frozen=True)
class Case:
    """What is known when the verdict is written.  `against`: each other candidate's name to the winner's test on it.

    `yours` is the system that the user runs: one whose answers were given, or an endpoint.
    """

    winner: CandidateResult
    reference: CandidateResult | None
    yours: CandidateResult | None
    results: tuple[CandidateResult, ...]
    against: Mapping[str, Comparison]
    margin: float

    @property
    def pays(self) -> BreakEven | None:
        """When the winner has paid for itself: at the user's volume where one is stated."""
        return self.winner.payback or self.winner.break_even

    @property
    def others(self) -> list[CandidateResult]:
        return [result for result in self.results if result is not self.winner]

    def best(self, *kinds: str) -> CandidateResult | None:
        """The best of the others of these kinds, chosen on dev."""
        of_kind = [other for other in self.others if other.kind in kinds and other.dev_score is not None]
        return max(of_kind, key=lambda other: other.dev_score or 0.0, default=None)


def recommend(case: Case) -> Recommendation:
    """Walks the reasons not to take the winner, strongest first; where none holds, there is a winner."""
    if not case.others:
        return _say(
            case.winner,
            "no clear winner",
            f"{case.winner.name} is the only candidate and gets {_score(case.winner)}.",
            "Nothing was compared, so nothing was shown.",
        )
    better = [other for other in case.others if case.against[other.name].word == "worse"]
    if better:
        return _contradicted(case, max(better, key=lambda other: other.score))
    if case.yours is not None:
        return _beside_own_system(case, case.yours)
    if case.winner.kind == "floor":
        return _floor_wins(case)
    simpler = [case.best(kind) for kind in SIMPLEST_FIRST[: SIMPLEST_FIRST.index(case.winner.kind)]]
    unbeaten = [rival for rival in simpler if rival is not None and case.against[rival.name].word != "better"]
    beaten = [other for other in case.others if case.against[other.name].word == "better"]
    if unbeaten or not beaten:
        return _not_shown(case, max(unbeaten or case.others, key=lambda rival: rival.score))
    named = [other for other in beaten if other is case.reference] or beaten
    return _wins(case, max(named, key=lambda rival: rival.dev_score or 0.0))


def _contradicted(case: Case, better: CandidateResult) -> Recommendation:
    """Test shows something better than the dev winner."""
    first = (
        f"{case.winner.name} was chosen on dev, but on test it {_gap(case.against[better.name])}, which gets "
        f"{_score(better)}."
    )
    if better is case.yours or better.kind == "given":
        return _say(better, "keep what you have", first, "Keep what you have: nothing tried here beats it.")
    if better.kind == "floor":
        return _say(better, "a floor wins", first, "A floor wins: no language model is needed for this.")
    return _say(
        better,
        "no clear winner",
        first,
        f"No clear winner, because dev and test disagree: let fresh test rows confirm {better.name} first.",
    )


def _beside_own_system(case: Case, own: CandidateResult) -> Recommendation:
    """A system runs already: a winner has to be shown better than it, or no worse and paying for itself."""
    if case.winner is own:
        rival = case.best(*SIMPLEST_FIRST) or case.others[0]
        return _say(
            own,
            "keep what you have",
            f"Keep what you have: {own.name} gets {_score(own)} and no other "
            f"candidate was better on dev by more than {points(case.margin)}.",
            f"It {_gap(case.against[rival.name])}, the nearest other.",
        )
    comparison = case.against[own.name]
    if comparison.word == "better":
        return _floor_wins(case) if case.winner.kind == "floor" else _wins(case, own)
    pays = case.pays
    if comparison.word == "no worse" and pays is not None and pays.value is not None and not pays.only_at_first:
        outcome: Outcome = "a floor wins" if case.winner.kind == "floor" else "winner"
        return _say(
            case.winner,
            outcome,
            f"Take {case.winner.name} because it is cheaper and as good: it {_gap(comparison)}.",
            _what_it_takes(case),
        )
    return _say(
        own,
        "keep what you have",
        f"Keep what you have: {case.winner.name}, the best on dev, gets {_score(case.winner)}, but {_gap(comparison)}.",
        _what_would_tell(case, comparison),
    )


def _floor_wins(case: Case) -> Recommendation:
    first = f"A floor wins: {case.winner.name}, which needs no language model, gets {_score(case.winner)}."
    rival = case.best("prompt", "weights")
    if rival is None:
        return _say(case.winner, "a floor wins", first, "No candidate with a language model was compared.")
    return _say(
        case.winner,
        "a floor wins",
        first,
        f"It {_gap(case.against[rival.name])}, the best candidate with a language model, "
        "so a model has not earned its cost here.",
    )


def _not_shown(case: Case, rival: CandidateResult) -> Recommendation:
    """The winner is not shown better than the rival, something simpler where there is any; a floor that is level or
    ahead wins outright."""
    comparison = case.against[rival.name]
    if rival.kind == "floor" and comparison.difference <= 0:
        return _say(
            rival,
            "a floor wins",
            f"A floor wins: {rival.name}, which needs no language model, gets {_score(rival)}.",
            f"{case.winner.name}, the best on dev, {_gap(comparison)}, so a model has not earned its cost here.",
        )
    first = f"No clear winner: {case.winner.name}, the best on dev, gets {_score(case.winner)}, but {_gap(comparison)}."
    simpler = SIMPLEST_FIRST.index(rival.kind) < SIMPLEST_FIRST.index(case.winner.kind)
    choice = rival if simpler and comparison.difference <= 0 else case.winner
    return _say(choice, "no clear winner", first, _what_would_tell(case, comparison))


def _wins(case: Case, rival: CandidateResult) -> Recommendation:
    return _say(
        case.winner,
        "winner",
        f"Take {case.winner.name}, because it gets {_score(case.winner)} and {_gap(case.against[rival.name])}.",
        _what_it_takes(case),
    )


def _what_it_takes(case: Case) -> str:
    """The second sentence about a winner: what it cost, when that is paid back, what it is not shown better than."""
    spent = case.winner.training_seconds + case.winner.search_seconds
    parts = [f"took {duration(spent)} to make"] if spent >= 1 else []
    if case.pays is not None:
        parts.append(_pays(case.pays))
    alike = [other.name for other in case.others if case.against[other.name].word != "better"]
    if alike:
        parts.append(f"is not shown better than {_listed(alike)}")
    return f"It {_listed(parts)}." if parts else "Every other candidate is shown worse."


def _pays(pays: BreakEven) -> str:
    if pays.value is None:
        return "is never paid back" if pays.verdict == "never" else f"may or may not pay ({pays.verdict})"
    return f"is cheaper {pays.verdict}"


def _what_would_tell(case: Case, comparison: Comparison) -> str:
    n = case.winner.evaluation.n
    needed = rows_needed(comparison.difference, comparison.discordance)
    if needed is None or needed <= n or needed > 100 * n:
        return f"The {n} test rows say no more than that, and a difference this small may not matter."
    return f"About {_rounded(needed)} test rows would show a difference as large as it looks here; these were {n}."


def _score(result: CandidateResult) -> str:
    return score_of_rows(result.score, f"{result.evaluation.n} test rows", result.evaluation.scored_by)


def _gap(comparison: Comparison) -> str:
    """What the winner's test against another showed, as a predicate."""
    evidence = f"95 % interval {signed_span(comparison.interval)}, p {_p(comparison.p_value_adjusted)}"
    if comparison.word in ("better", "worse"):
        return f"is {comparison.word} than {comparison.b} by {points(abs(comparison.difference))} ({evidence})"
    seen = "is no worse than" if comparison.word == "no worse" else "cannot be told apart from"
    return f"{seen} {comparison.b} ({signed(comparison.difference)} points, {evidence})"


def _p(value: float) -> str:
    return "≤ 0.001" if value <= 0.001 else f"= {value:.2g}"


def _rounded(rows: int) -> str:
    step = 10 if rows < 1000 else 100
    return f"{-(-rows // step) * step:,}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _say(candidate: CandidateResult, outcome: Outcome, first: str, second: str) -> Recommendation:
    return Recommendation(candidate.name, outcome, (first, second))
