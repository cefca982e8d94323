"""Which policy of a training is kept, and when training goes back to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from posttrain.evaluation.statistics import Interval, difference_of_means

Judgement = Literal["best", "worse", "neither"]


@dataclass
class Best:
    """The best policy so far by its dev scores, the first being the one that training began with.

    A policy is the best when its score is higher, and worse when it is lower beyond chance (the 95 % interval of the
    paired difference).  Once one was worse, a higher score is not enough: it must be so beyond chance, too.  A reward
    that has led astray has shown how little it has to do with the task, and of many policies one is always luckiest.
    """

    step: int = 0
    score: tuple[float, float] = (-1.0, -1.0)
    outcomes: list[float] = field(default_factory=list)
    first_outcomes: list[float] = field(default_factory=list)
    worse: int = 0  # so often was one

    def __post_init__(self) -> None:
        self.score = self.score[0], self.score[1]  # a list where it was read from a file

    def judge(self, step: int, score: tuple[float, float], outcomes: Sequence[float]) -> Judgement:
        """What a policy is whose dev rows have these outcomes; `score` their mean, then what decides between equals."""
        if not self.first_outcomes:
            self.first_outcomes = list(outcomes)
        elif not self._is_better(score, outcomes):
            if difference_of_means(outcomes, self.outcomes).interval[1] >= 0:
                return "neither"
            self.worse += 1
            return "worse"
        self.step, self.score, self.outcomes = step, score, list(outcomes)
        return "best"

    @property
    def gain(self) -> Interval:
        """The 95 % interval of what the best policy scores more than the one that training began with."""
        return difference_of_means(self.outcomes, self.first_outcomes).interval

    def _is_better(self, score: tuple[float, float], outcomes: Sequence[float]) -> bool:
        if self.worse:
            return difference_of_means(outcomes, self.outcomes).interval[0] > 0
        return score > self.score
