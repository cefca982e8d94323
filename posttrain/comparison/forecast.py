"""What more labelled rows would buy: a power law through the scores at 25, 50 and 100 % of the training rows.

error(n) = a n^-b is the usual shape of learning curves (Hestness et al., arXiv:1712.00409).  Its uncertainty is
that of the scores: each point is redrawn as a share of the scored rows and the law fitted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posttrain.comparison.wording import signed, signed_span
from posttrain.evaluation.statistics import Interval


@dataclass(frozen=True)
class Forecast:
    """Points gained by `more` labelled rows: None where the curve does not carry a forecast.  `line` is drawn."""

    more: int
    gain: float | None
    interval: Interval | None
    line: tuple[tuple[int, float], ...]
    sentence: str


def forecast(curve: Sequence[tuple[int, float]], *, scored_rows: int, seed: int = 0) -> Forecast:
    """What doubling the labelled rows would add, rounded to one digit.

    `curve` holds (labelled rows, score on `scored_rows` rows).  Fewer than three sizes carry no forecast.
    """
    sizes = np.array([n for n, _ in curve], dtype=float)
    scores = np.array([score for _, score in curve])
    if len(set(sizes)) < 3:
        return Forecast(0, None, None, (), "No forecast: that takes scores at three numbers of labelled rows.")
    last = int(sizes.max())
    more = _one_digit(last)
    draws = np.random.default_rng(seed).binomial(scored_rows, scores, size=(2000, len(scores))) / scored_rows
    gains = _gains(sizes, draws, scored_rows, last, more)
    gain = float(_gains(sizes, scores[None], scored_rows, last, more)[0])
    low, high = (float(end) for end in np.quantile(gains, [0.025, 0.975]))
    if low <= 1e-9:
        return Forecast(
            more,
            None,
            (low, high),
            (),
            f"The curve does not tell whether {more} more rows would help ({signed_span((low, high))} points).",
        )
    slope, intercept = _fit(sizes, scores[None], scored_rows)
    reach = np.linspace(sizes.min(), last + more, 40).astype(int)
    line = tuple((int(n), float(1 - np.exp(intercept[0] + slope[0] * np.log(n)))) for n in reach)
    return Forecast(
        more,
        gain,
        (low, high),
        line,
        f"{more} more rows: about {signed(gain)} points ({signed_span((low, high))}), if the curve goes on as it went.",
    )


def _fit(
    sizes: NDArray[np.float64], scores: NDArray[np.float64], scored_rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept of log error against log rows, for each row of `scores`; half a row is the least error."""
    errors = np.log(np.maximum(1 - scores, 0.5 / scored_rows))
    x = np.log(sizes)
    centred = x - x.mean()
    slope = errors @ centred / (centred @ centred)
    return slope, errors.mean(axis=1) - slope * x.mean()


def _gains(
    sizes: NDArray[np.float64], scores: NDArray[np.float64], scored_rows: int, last: int, more: int
) -> NDArray[np.float64]:
    slope, intercept = _fit(sizes, scores, scored_rows)
    return np.exp(intercept + slope * np.log(last)) - np.exp(intercept + slope * np.log(last + more))


def _one_digit(n: int) -> int:
    scale = 10 ** (len(str(n)) - 1)
    return max(1, round(n / scale)) * scale
