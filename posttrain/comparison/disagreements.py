"""The rows worth reading: where candidates differ, and where all good ones miss alike (likely label errors)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.evaluation.record import Attempt, Evaluation, refuse_unlike


@dataclass(frozen=True)
class Disagreement:
    """A row on which one of two candidates did better; `first_outcome` and `second_outcome` are 0 (wrong) or 1 (right),
    or grades."""

    row_id: str
    text: str
    target: str | None
    first_answer: str
    second_answer: str
    first_outcome: float
    second_outcome: float

    @property
    def difference(self) -> float:
        """Of the first from the second."""
        return self.first_outcome - self.second_outcome


@dataclass(frozen=True)
class SharedMiss:
    """A row whose label every good candidate contradicts with one and the same answer."""

    row_id: str
    text: str
    target: str | None
    answer: str
    candidates: tuple[str, ...]


def by_row(evaluations: Sequence[Evaluation]) -> list[list[Attempt]]:
    """The attempts at each row, candidates in the order given.  Raises UserError when the rows are not the same."""
    if not evaluations:
        return []
    for other in evaluations[1:]:
        refuse_unlike(evaluations[0], other)
    found = [{attempt.row_id: attempt for attempt in evaluation.attempts} for evaluation in evaluations]
    return [[attempts[row_id] for attempts in found] for row_id in found[0]]


def differing_rows(first: Evaluation, second: Evaluation, *, n: int = 3, seed: int = 0) -> list[Disagreement]:
    """Up to n rows where the two differ, by at least half as much as anywhere, drawn with `seed`: of both directions
    where there are both, so that a loser's good moments are shown too."""
    rows = [
        Disagreement(
            one.row_id, one.text, one.target, one.answer, other.answer, first.outcome(one), second.outcome(other)
        )
        for one, other in by_row([first, second])
    ]
    least = max((abs(row.difference) for row in rows), default=0.0) / 2
    clear = [row for row in rows if row.difference and abs(row.difference) >= least]
    wins = [row for row in clear if row.difference > 0], [row for row in clear if row.difference < 0]
    draw = random.Random(seed)
    more, fewer = sorted(wins, key=len, reverse=True)
    rare = draw.sample(fewer, min(len(fewer), n // 3 or 1)) if n > 1 else []
    return [*draw.sample(more, min(len(more), n - len(rare))), *rare]


def missed_alike(evaluations: Sequence[Evaluation]) -> list[SharedMiss]:
    """The rows that all good candidates miss with the same answer; [] when fewer than two are good.

    Good means: not shown behind the best, that is, the interval reaches the best score.
    """
    best = max((evaluation.score for evaluation in evaluations), default=0.0)
    good = [evaluation for evaluation in evaluations if evaluation.interval[1] >= best and evaluation.score > 0]
    if len(good) < 2:
        return []
    missed = []
    for attempts in by_row(good):
        answers = Counter(attempt.answer.strip() for attempt in attempts)
        failed = any(attempt.passed or attempt.error for attempt in attempts)
        if not failed and len(answers) == 1 and attempts[0].target is not None:
            row = attempts[0]
            missed.append(SharedMiss(row.row_id, row.text, row.target, row.answer, tuple(e.candidate for e in good)))
    return missed
