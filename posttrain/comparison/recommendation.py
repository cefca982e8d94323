"""The verdict: two sentences that say what to do and name the reason.

The dev winner must be shown better, on test, than whatever is simpler than it: the system that runs already, the
best floor and, where nothing runs yet, the best prompt.  Where it is not, the verdict says so instead.  Rivals are
taken in the order of dev: no score on test chooses one.  What test takes from the dev winner goes to the system that
runs already, or to the best floor on dev where that is shown as good; to nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.comparison.case import Case, by_dev
from posttrain.comparison.money import BreakEven
from posttrain.comparison.results import SIMPLEST_FIRST, CandidateResult, Comparison, Outcome, Recommendation
from posttrain.comparison.wording import duration, points, score_of_rows, signed, signed_span
from posttrain.evaluation.statistics import rows_needed


def recommend(case: Case) -> Recommendation:
    """Walks the reasons not to take the winner, strongest first; where none holds, there is a winner."""
    if not case.others:
        return _say(
            case.winner,
            "no clear winner",
            f"{case.winner.name} is the only candidate and gets {_score(case.winner)}.",
            "Nothing was compared, so nothing was shown.",
        )
    if case.yours is not None:
        return _yours_is_best(case) if case.winner is case.yours else _beside_own_system(case, case.yours)
    floor = case.unbeaten_floor
    if floor is not None and case.as_good(floor):
        return _floor_is_as_good(case, floor)
    if case.shown_better:
        return _disagree(case, case.shown_better[0])
    if case.winner.kind == "floor":
        return _floor_wins(case)
    simpler = [case.unbeaten(kind) for kind in SIMPLEST_FIRST[: SIMPLEST_FIRST.index(case.winner.kind)]]
    unbeaten = [rival for rival in simpler if rival is not None]
    beaten = [other for other in case.others if case.against[other.name].word == "better"]
    if unbeaten or not beaten:
        return _not_shown(case, min(unbeaten or case.others, key=by_dev))
    named = [other for other in beaten if other is case.reference] or beaten
    return _wins(case, min(named, key=by_dev))


# ---- where a system runs already


def _yours_is_best(case: Case) -> Recommendation:
    """The system that runs is the best on dev too: only a floor that test shows better takes its place."""
    own, better = case.winner, case.shown_better
    floor = case.best("floor")
    if floor is not None and floor in better:
        return _floor_is_as_good(case, floor)
    rival = better[0] if better else case.best(*SIMPLEST_FIRST) or case.others[0]
    second = f"It {_gap(case.against[rival.name])}, the nearest other."
    if better:
        second = f"On test it {_gap(case.against[rival.name])}: let fresh test rows confirm {rival.name} first."
    return _say(
        own,
        "keep what you have",
        f"Keep what you have: {own.name} gets {_score(own)} and no other candidate was better on dev by more than "
        f"{points(case.margin)}.",
        second,
    )


def _beside_own_system(case: Case, own: CandidateResult) -> Recommendation:
    """A winner has to be shown better than the system that runs, or no worse and paying for itself; and better than
    the best floor, which takes its place where it has shown as much."""
    floor, comparison = case.unbeaten_floor, case.against[own.name]
    if floor is not None and (comparison.word == "better" or case.as_good(floor)):
        beside = case.against_yours[floor.name]
        if beside.word == "better" or (case.as_good(floor) and beside.word == "no worse" and _saves(floor)):
            return _floor_is_as_good(case, floor)
    running = [other for other in case.shown_better if other is own or other.kind == "given"]
    if running:
        return _keep(case, own if own in running else running[0])
    cheaper = comparison.word == "no worse" and _saves(case.winner)
    if comparison.word != "better" and not cheaper:
        return _say(
            own,
            "keep what you have",
            f"Keep what you have: {case.winner.name}, the best on dev, gets {_score(case.winner)}, "
            f"but {_gap(comparison)}.",
            _what_would_tell(case, comparison),
        )
    if case.shown_better:
        return _disagree(case, case.shown_better[0])
    if floor is not None:
        return _not_shown(case, floor)
    if comparison.word == "better":
        return _floor_wins(case) if case.winner.kind == "floor" else _wins(case, own)
    outcome: Outcome = "a floor wins" if case.winner.kind == "floor" else "winner"
    return _say(case.winner, outcome, _cheaper(case.winner, comparison), _what_it_takes(case))


def _keep(case: Case, running: CandidateResult) -> Recommendation:
    """Test shows a system that runs already better than the dev winner."""
    first = f"{case.winner.name} was chosen on dev, but on test it {_gap(case.against[running.name])}"
    return _say(
        running,
        "keep what you have",
        f"{first}, which gets {_score(running)}.",
        "Keep what you have: what was chosen on dev does not beat it.",
    )


def _cheaper(result: CandidateResult, comparison: Comparison) -> str:
    return f"Take {result.name} because it is cheaper and as good: it {_gap(comparison)}."


def _saves(result: CandidateResult) -> bool:
    """Whether it pays for itself, and not only at first."""
    pays = _when_it_pays(result)
    return pays is not None and pays.value is not None and not pays.only_at_first


# ---- floors


def _floor_wins(case: Case) -> Recommendation:
    """The floor is the best on dev."""
    rivals = [other for other in case.others if other.kind in ("prompt", "weights") and other is not case.yours]
    rival = min(rivals, key=by_dev, default=None)
    second = "No other candidate with a language model was compared."
    if rival is not None:
        second = (
            f"It {_gap(case.against[rival.name])}, the best candidate with a language model, "
            "so a model has not earned its cost here."
        )
    return _say(case.winner, "a floor wins", _floor_gets(case, case.winner), second)


def _floor_is_as_good(case: Case, floor: CandidateResult) -> Recommendation:
    """The best floor on dev takes the winner's place: it is shown as good, or better than what runs."""
    second = f"{case.winner.name}, the best on dev, {_doubt(case.against[floor.name])}"
    return _say(floor, "a floor wins", _floor_gets(case, floor), f"{second}, so a model has not earned its cost here.")


def _floor_gets(case: Case, floor: CandidateResult) -> str:
    """The first sentence about a floor that wins, which names the system that it takes the place of."""
    first = f"A floor wins: {floor.name}, which needs no language model, gets {_score(floor)}"
    if case.yours is None or case.yours is case.winner:
        return f"{first}."
    beside = case.against_yours[floor.name]
    return f"{first} and {_gap(beside)}." if beside.word == "better" else _cheaper(floor, beside)


# ---- no clear winner


def _disagree(case: Case, better: CandidateResult) -> Recommendation:
    """Test shows something better than the dev winner, and chooses nothing for that."""
    first = f"{case.winner.name} was chosen on dev, but on test it {_gap(case.against[better.name])}"
    confirm = f"let fresh test rows confirm {better.name} first"
    second = f"No clear winner, because dev and test disagree: {confirm}."
    if case.yours is not None:
        own = _gap(case.against[case.yours.name])
        second = f"It {own}, but there is no clear winner, because dev and test disagree: {confirm}."
    return _say(case.winner, "no clear winner", f"{first}, which gets {_score(better)}.", second)


def _not_shown(case: Case, rival: CandidateResult) -> Recommendation:
    """The winner is not shown better than the rival, something simpler where there is any."""
    comparison = case.against[rival.name]
    own = f" and {_gap(case.against[case.yours.name])}" if case.yours is not None else ""
    return _say(
        case.winner,
        "no clear winner",
        f"No clear winner: {case.winner.name}, the best on dev, gets {_score(case.winner)}{own}, "
        f"but {_doubt(comparison)}.",
        _what_would_tell(case, comparison),
    )


def _what_would_tell(case: Case, comparison: Comparison) -> str:
    n = case.winner.evaluation.n
    needed = rows_needed(comparison.difference, comparison.discordance)
    if needed is None or needed <= n or needed > 100 * n:
        return f"The {n} test rows say no more than that, and a difference this small may not matter."
    return f"About {_rounded(needed)} test rows would show a difference as large as it looks here; these were {n}."


# ---- a winner


def _wins(case: Case, rival: CandidateResult) -> Recommendation:
    return _say(
        case.winner,
        "winner",
        f"Take {case.winner.name}, because it gets {_score(case.winner)} and {_gap(case.against[rival.name])}.",
        _what_it_takes(case),
    )


def _what_it_takes(case: Case) -> str:
    """The second sentence about a winner: what it cost, when that is paid back, what it is not shown better than."""
    spent, pays = case.winner.training_seconds + case.winner.search_seconds, _when_it_pays(case.winner)
    parts = [f"took {duration(spent)} to make"] if spent >= 1 else []
    if pays is not None:
        parts.append(_pays(pays))
    alike = [other.name for other in case.others if case.against[other.name].word != "better"]
    if alike:
        parts.append(f"is not shown better than {_listed(alike)}")
    return f"It {_listed(parts)}." if parts else "Every other candidate is shown worse."


def _when_it_pays(result: CandidateResult) -> BreakEven | None:
    """When a candidate has paid for itself: at the user's volume where one is stated."""
    return result.payback or result.break_even


def _pays(pays: BreakEven) -> str:
    if pays.value is None:
        return "is never paid back" if pays.verdict == "never" else f"may or may not pay ({pays.verdict})"
    return f"is cheaper {pays.verdict}"


# ---- words


def _score(result: CandidateResult) -> str:
    return score_of_rows(result.score, f"{result.evaluation.n} test rows", result.evaluation.scored_by)


def _gap(comparison: Comparison, no_worse: str = "is no worse than") -> str:
    """What one candidate's test against another showed, as a predicate."""
    evidence = f"95 % interval {signed_span(comparison.interval)}, p {_p(comparison.p_value_adjusted)}"
    if comparison.word in ("better", "worse"):
        return f"is {comparison.word} than {comparison.b} by {points(abs(comparison.difference))} ({evidence})"
    seen = no_worse if comparison.word == "no worse" else "cannot be told apart from"
    return f"{seen} {comparison.b} ({signed(comparison.difference)} points, {evidence})"


def _doubt(comparison: Comparison) -> str:
    """The same where being no worse is not enough."""
    return _gap(comparison, no_worse="is not shown better than")


def _p(value: float) -> str:
    return "≤ 0.001" if value <= 0.001 else f"= {value:.2g}"


def _rounded(rows: int) -> str:
    step = 10 if rows < 1000 else 100
    return f"{-(-rows // step) * step:,}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _say(candidate: CandidateResult, outcome: Outcome, first: str, second: str) -> Recommendation:
    return Recommendation(candidate.name, outcome, (first, second))
