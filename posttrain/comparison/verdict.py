"""Who wins, and what the test rows say about it.

The winner is chosen on dev, simpler kinds first among near ties, and then tested on test against every other
candidate.  The reference is the user's own system if there is one, else the best prompt chosen on dev.  No score on
test chooses anything: test can only confirm, or take a claim away, and what it takes from the dev winner goes to the
user's system or to the best floor on dev, or to nobody ("no clear winner").
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

from posttrain.comparison.case import Case
from posttrain.comparison.recommendation import recommend
from posttrain.comparison.results import SIMPLEST_FIRST, CandidateResult, Comparison, Recommendation
from posttrain.evaluation.statistics import (
    MARGIN,
    detectable_difference,
    detectable_mean_difference,
    holm,
    word,
)
from posttrain.types import ScoredBy, UserError


def choose_winner(results: Sequence[CandidateResult], margin: float = MARGIN) -> CandidateResult:
    """The best on dev; among those within `margin` of it the simplest kind, then the cheapest, then the best.

    Raises UserError when no candidate was scored on dev.
    """
    scored = [(result, result.dev_score) for result in results if result.dev_score is not None]
    if not scored:
        raise UserError(
            "no candidate has a dev score, so no winner can be chosen",
            place="dev",
            remedy="compare at least one candidate that can answer the dev rows",
        )
    best = max(score for _, score in scored)
    near = [(result, score) for result, score in scored if score >= best - margin - 1e-9]
    return min(near, key=lambda one: (SIMPLEST_FIRST.index(one[0].kind), _cost_per_request(one[0]), -one[1]))[0]


def choose_reference(
    results: Sequence[CandidateResult], yours: str | None = None, margin: float = MARGIN
) -> CandidateResult | None:
    """The user's own system if named, else the best prompt on dev; None when there is neither.  Raises UserError."""
    if yours is not None:
        own = [result for result in results if result.name == yours]
        if not own:
            raise UserError(f"no candidate called {yours!r}", remedy=f"known: {', '.join(r.name for r in results)}")
        return own[0]
    prompts = [result for result in results if result.kind == "prompt" and result.dev_score is not None]
    return choose_winner(prompts, margin) if prompts else None


def decide(
    results: Sequence[CandidateResult], *, yours: str | None = None, margin: float = MARGIN
) -> tuple[list[Comparison], Recommendation]:
    """The tests on the test rows, and what to do.  `yours` names the system that the user runs, if there is one.

    Two families of tests, each adjusted by Holm: the winner against every other candidate, and every other
    candidate against the reference.  Raises UserError (no dev scores, unlike rows, no such system).
    """
    winner, reference = choose_winner(results, margin), choose_reference(results, yours, margin)
    against = [(winner, other) for other in results if other is not winner]
    comparisons = _tested("winner", against, margin)
    beside = []
    if reference is not None:
        beside = _tested("reference", [(other, reference) for other in results if other is not reference], margin)
    case = Case(
        winner,
        reference,
        yours=reference if yours is not None else None,
        results=tuple(results),
        against={c.b: c for c in comparisons},
        against_yours={c.a: c for c in beside} if yours is not None else {},
        margin=margin,
    )
    return [*comparisons, *beside], recommend(case)


def _tested(
    family: Literal["winner", "reference"], couples: Sequence[tuple[CandidateResult, CandidateResult]], margin: float
) -> list[Comparison]:
    found = [one.evaluation.against(other.evaluation) for one, other in couples]
    adjusted_p_values = holm([difference.p_value for difference in found])
    return [
        Comparison(
            a=one.name,
            b=other.name,
            family=family,
            difference=difference.value,
            interval=difference.interval,
            p_value=difference.p_value,
            p_value_adjusted=adjusted,
            test=f"{difference.test}, Holm",
            word=word(difference.interval, adjusted, margin),
            discordance=difference.discordance,
        )
        for (one, other), difference, adjusted in zip(couples, found, adjusted_p_values, strict=True)
    ]


def detectable(comparisons: Sequence[Comparison], n: int, scored_by: ScoredBy) -> float | None:
    """The smallest difference that n rows could have shown (80 % power) between the winner and whichever candidate
    differs from it on the most rows, either way: beside weak candidates alone, every difference would seem plain."""
    against = [found for found in comparisons if found.family == "winner"]
    if scored_by == "grade":
        variances = [found.discordance - found.difference**2 for found in against]
        return detectable_mean_difference(n, max(variances)) if variances else detectable_mean_difference(n)
    seen = [found.discordance - abs(found.difference) for found in against]
    return detectable_difference(n, max(seen)) if seen else detectable_difference(n)


def detectable_sentence(difference: float | None, n: int) -> str:
    """What these rows cannot tell."""
    if difference is None:
        return f"cannot tell any difference with n={n}: too few test rows"
    return f"cannot tell differences below {100 * difference:.0f} points with n={n}"


def next_commands(recommendation: Recommendation, task: str, run: str, *, instead: str = "") -> list[str]:
    """The three commands that follow from the verdict.  `run` and `task` may be folders with odd names.

    `instead` names (as RUN/NAME) the best candidate that can answer, where the recommended one cannot.
    """
    run, task = shlex.quote(run), shlex.quote(task)
    show, check = f"posttrain show {run} --all", f"posttrain check {task}"
    if instead:
        return [show, check, f"posttrain serve {shlex.quote(instead)}"]
    if recommendation.outcome in ("winner", "a floor wins"):
        return [f"posttrain serve {run}", f"posttrain predict {run} FILE", show]
    if recommendation.outcome == "keep what you have":
        return [show, check, f"posttrain compare --like {run} --model MODEL"]
    return [show, check, f"posttrain serve {run}"]


def _cost_per_request(result: CandidateResult) -> float:
    return result.cost.per_request if result.cost else float("inf")
