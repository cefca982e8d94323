"""The statistics every number stands on: outcomes or grades on the same rows, nothing assumed that is not needed.

Shares get Wilson intervals, paired differences Newcombe's score interval and the exact McNemar test, anything
measured on a scale a paired bootstrap, several comparisons Holm's adjustment.  Shares and differences are in
[0, 1] and [-1, 1]; intervals are (low, high) at `level`, 95 % unless told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Word = Literal["better", "no worse", "cannot tell", "worse"]

RESAMPLES = 10_000
"""Of a bootstrap."""

MARGIN = 0.02
"""How much worse still counts as no worse: 2 points, unless the user says otherwise."""


def wilson_interval(passed: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (JASA 22:209, 1927).  Nothing is known at n = 0: (0, 1)."""
    if not 0 <= passed <= n:
        raise ValueError(f"{passed} passed out of {n}")
    if n == 0:
        return 0.0, 1.0
    share, z = passed / n, NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (centre - spread if passed else 0.0), (centre + spread if passed < n else 1.0)


@dataclass(frozen=True)
class Pairs:
    """Two candidates on the same rows, counted: right by both, by the first only, by the second only, by neither."""

    both: int
    first: int
    second: int
    neither: int

    @staticmethod
    def count(first: Sequence[bool], second: Sequence[bool]) -> Pairs:
        """Counts two aligned lists of outcomes."""
        outcomes = list(zip(first, second, strict=True))
        return Pairs(*(outcomes.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))

    @property
    def n(self) -> int:
        return self.both + self.first + self.second + self.neither

    @property
    def difference(self) -> float:
        """Share of the first minus share of the second."""
        return (self.first - self.second) / self.n if self.n else 0.0

    @property
    def discordance(self) -> float:
        """Share of rows that exactly one of the two gets right: all that a paired test can use."""
        return (self.first + self.second) / self.n if self.n else 0.0

    @property
    def churn(self) -> float:
        """Share of rows that would still differ if the two were equally good: discordance beyond the difference."""
        return 2 * min(self.first, self.second) / self.n if self.n else 0.0


def mcnemar_p_value(pairs: Pairs) -> float:
    """Exact two-sided McNemar test (Psychometrika 12:153, 1947): a fair coin over the discordant rows."""
    fewer, discordant = min(pairs.first, pairs.second), pairs.first + pairs.second
    return min(1.0, 2 * float(_chance_of_at_most(fewer, discordant, 0.5)))


def newcombe_interval(pairs: Pairs, level: float = 0.95) -> Interval:
    """Interval of a paired difference of shares: Newcombe's method 10 (Statistics in Medicine 17:2635, 1998).

    Squares and adds the Wilson limits of both shares, corrected for their correlation phi.
    """
    n = pairs.n
    if n == 0:
        return -1.0, 1.0
    first, second = pairs.both + pairs.first, pairs.both + pairs.second
    first_low, first_high = wilson_interval(first, n, level)
    second_low, second_high = wilson_interval(second, n, level)
    phi = _corrected_phi(pairs)
    below = _squared_and_added(first / n - first_low, second_high - second / n, phi)
    above = _squared_and_added(first_high - first / n, second / n - second_low, phi)
    return max(-1.0, pairs.difference - below), min(1.0, pairs.difference + above)


def _corrected_phi(pairs: Pairs) -> float:
    first, second = pairs.both + pairs.first, pairs.both + pairs.second
    scale = math.sqrt(first * (pairs.n - first) * second * (pairs.n - second))
    product = float(pairs.both * pairs.neither - pairs.first * pairs.second)
    if product > 0:
        product = max(0.0, product - pairs.n / 2)
    return product / scale if scale else 0.0


def _squared_and_added(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


@dataclass(frozen=True)
class Difference:
    """A paired difference of two scores, first minus second, and what was found out about it.

    `discordance` is the mean square of the rows' differences: of pass/fail outcomes the share of rows that exactly
    one of the two gets right.
    """

    value: float
    interval: Interval
    p_value: float
    test: str
    discordance: float


def difference_of_shares(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Of pass/fail outcomes on the same rows: Newcombe's interval and the exact McNemar test."""
    pairs = Pairs.count(first, second)
    return Difference(
        pairs.difference, newcombe_interval(pairs), mcnemar_p_value(pairs), "exact McNemar", pairs.discordance
    )


def difference_of_means(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Difference:
    """Of grades in [0, 1] on the same rows, by a paired bootstrap: the percentile interval, of these rows and two more
    that differ by 1 and by -1; and how often the differences, shifted to a mean of 0, are by chance as far from it as
    they were (Efron and Tibshirani 1993, section 16.4)."""
    sample = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    mean = float(sample.mean())
    interval = bootstrap_interval([*sample.tolist(), 1.0, -1.0], seed=seed)
    spread = math.sqrt(sample.size / max(1, sample.size - 1))  # a sample deviates less from its own mean
    chance = np.abs(_resampled_means((sample - mean) * spread, np.random.default_rng(seed))) >= abs(mean) - 1e-12
    least = 2.0 ** (1 - np.count_nonzero(sample))  # of a sign test: few rows cannot show more
    p_value = min(1.0, max(float(least), float((1 + chance.sum()) / (1 + RESAMPLES))))
    return Difference(mean, interval, p_value, "paired bootstrap", float((sample**2).mean()))


def mean_interval(values: Sequence[float]) -> Interval:
    """Bootstrap interval of a mean grade in [0, 1], of these rows and two more that have 0 and 1: ten perfect answers
    do not show that all will be (the idea of Agresti and Coull, The American Statistician 52:119, 1998)."""
    return bootstrap_interval([*values, 0.0, 1.0], seed=0) if values else (0.0, 1.0)


def bootstrap_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap interval of a mean.  Give it differences on the same rows and it is a paired bootstrap.

    Percentiles commute with any monotone function, so the interval of F / mean is F over this one's ends.
    """
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("no values")
    return _percentiles(_resampled_means(sample, np.random.default_rng(seed), resamples), level)


def bootstrap_difference(first: Sequence[float], second: Sequence[float], *, seed: int) -> Interval:
    """Interval of mean(first) - mean(second): paired where they are the same number of rows, else each on its own."""
    if len(first) == len(second):
        return bootstrap_interval([one - other for one, other in zip(first, second, strict=True)], seed=seed)
    draw = np.random.default_rng(seed)
    return _percentiles(_resampled_means(np.asarray(first), draw) - _resampled_means(np.asarray(second), draw), 0.95)


def _resampled_means(sample: np.ndarray, draw: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """Means [resamples], a few million numbers at a time."""
    at_once = max(1, 4_000_000 // sample.size)
    sizes = [min(at_once, resamples - begun) for begun in range(0, resamples, at_once)]
    return np.concatenate([sample[draw.integers(0, sample.size, (size, sample.size))].mean(axis=1) for size in sizes])


def _percentiles(means: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scandinavian Journal of Statistics 6:65, 1979), in the order given.

    statsmodels' multipletests does the same after a full garbage collection.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted


def word(interval: Interval, p_value_adjusted: float, margin: float = MARGIN) -> Word:
    """What a paired difference may be called.

    "better" and "worse" need the interval clear of 0 and p < 0.05 after adjustment; "no worse" means that a loss
    of `margin` or more is ruled out, even where a smaller loss is shown; all else is "cannot tell".
    """
    low, high = interval
    shown = p_value_adjusted < 0.05
    if shown and low > 0:
        return "better"
    if low > -margin:
        return "no worse"
    return "worse" if shown and high < 0 else "cannot tell"


def power(n: int, difference: float, discordance: float, alpha: float = 0.05) -> float:
    """Chance that the exact McNemar test on n rows shows a true `difference` when `discordance` of rows differ.

    Exact: sums over the number of discordant rows and over who gets them.
    """
    discordance = min(1.0, max(discordance, abs(difference)))
    if discordance == 0:
        return 0.0
    counts, losses = np.arange(n + 1), [-1]  # with so many discordant rows at most so many losses reject
    for count in counts[1:]:  # each row more allows at most one more
        losses.append(losses[-1] + bool(2 * _chance_of_at_most(losses[-1] + 1, count, 0.5) <= alpha))
    losing, winning = (1 - difference / discordance) / 2, (1 + difference / discordance) / 2
    rejects = _chance_of_at_most(losses, counts, losing) + _chance_of_at_most(losses, counts, winning)
    happens = np.diff(_chance_of_at_most(counts, n, discordance), prepend=0.0)
    return float(np.sum(happens * rejects))


def _chance_of_at_most(successes: ArrayLike, trials: ArrayLike, chance: float) -> NDArray[np.float64]:
    """The binomial distribution function; the arrays of counts, or numbers, are broadcast."""
    from scipy import special  # noqa: PLC0415  (a third of a second that most commands do not need)

    at_most = np.asarray(successes)
    found: NDArray[np.float64] = special.bdtr(np.maximum(at_most, 0), trials, chance)
    return np.where(at_most < 0, 0.0, found)


def detectable_difference(n: int, churn: float = 0.2, wanted_power: float = 0.8) -> float | None:
    """The smallest true difference that n rows show with `wanted_power`; None when no difference could be shown.

    `churn` is the share of rows on which two equally good candidates differ; a true difference adds to it.
    """
    if power(n, 1.0, 1.0) < wanted_power:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, middle, churn + middle) >= wanted_power else (middle, high)
    return high


def detectable_mean_difference(n: int, variance: float = 0.1) -> float | None:
    """The smallest true difference of mean grades that n rows show with 80 % power (normal approximation); None when
    that is more than there can be.  `variance` is that of the rows' differences, before two more that differ by 1 and
    by -1 (see `difference_of_means`): rows that are all alike do not show that any difference would be seen."""
    found = (1.959964 + 0.841621) * math.sqrt((n * variance + 2) / (n + 2) / n) if n else math.inf
    return found if found <= 1 else None


def rows_needed(difference: float, discordance: float) -> int | None:
    """Rows with which a true `difference` would be shown with 80 % power; None when that takes over a million.

    Normal approximation (for paired shares Connor, Biometrics 43:207, 1987).
    """
    difference = abs(difference)
    discordance = max(discordance, difference**2)
    if difference < 1e-3:
        return None
    spread = 1.959964 * math.sqrt(discordance) + 0.841621 * math.sqrt(max(0.0, discordance - difference**2))
    return math.ceil(spread**2 / difference**2)
