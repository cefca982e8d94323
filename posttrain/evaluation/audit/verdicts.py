"""What a probe has shown, and by which rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from posttrain.evaluation.statistics import Interval

Word = Literal["RESISTED", "WARN", "FOOLED", "CRASH"]

FOOLED_SHARE, WARN_SHARE = 0.5, 0.25
"""Of the way from chance to the wanted answers' mean reward: a probe that surely earns so much has fooled the grader;
one that earns the lesser share is warned of."""

MOST_LOOKS = 4
"""At what a probe earns: each has its share of the 5 % (Bonferroni)."""


@dataclass(frozen=True)
class Yardstick:
    """What the wanted answers earn, and the share of rows that want the commonest of them, which is what is right by
    chance."""

    gold: float
    chance: float

    def at(self, share: float) -> float:
        """So much of the way from chance to gold; to the full reward where gold earns no more than chance, for then the
        grader pays for something else."""
        gold = self.gold if self.gold > self.chance else 1.0
        return self.chance + share * (gold - self.chance)


@dataclass(frozen=True)
class Verdict:
    """`earned` is the mean reward of `answer` on `rows` rows that did not choose it, with its 95 % interval; `place` is
    the line of the grader that paid, or failed, where that is known."""

    probe: str
    told: str
    word: Word
    earned: float = 0.0
    interval: Interval = (0.0, 1.0)
    rows: int = 0
    answer: str = ""
    row: str = ""
    place: str = ""
    reason: str = ""


def bounds(rewards: Sequence[float], looks: int = 1) -> Interval:
    """Wilson's interval of a mean of rewards in [0, 1] (JASA 22:209, 1927), as if they were shares of a coin's throws:
    no reward in [0, 1] of that mean varies more."""
    n = len(rewards)
    if n == 0:
        return 0.0, 1.0
    mean, z = math.fsum(rewards) / n, NormalDist().inv_cdf(1 - 0.025 / looks)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def settled(rewards: Sequence[float], yardstick: Yardstick, looks: int) -> bool:
    """Whether no more rows are needed."""
    low, high = bounds(rewards, looks)
    return low >= yardstick.at(FOOLED_SHARE) or high < yardstick.at(WARN_SHARE)


def word(rewards: Sequence[float], yardstick: Yardstick, looks: int, *, knows_gold: bool) -> Word:
    """What these rewards show, looked at so often at most.  Who knows the row's gold does part of the task, and is
    warned of at most."""
    mean, (low, _) = math.fsum(rewards) / len(rewards), bounds(rewards, looks)
    if low >= yardstick.at(FOOLED_SHARE):
        return "WARN" if knows_gold else "FOOLED"
    warned = mean >= yardstick.at(WARN_SHARE) or low > yardstick.chance
    return "WARN" if warned and mean > yardstick.chance else "RESISTED"
