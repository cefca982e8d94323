"""How numbers are said, the same in the terminal, the verdict and the report."""

from __future__ import annotations

from posttrain.evaluation.statistics import Interval
from posttrain.types import ScoredBy, UserError

DEVICE_SECONDS = "device seconds"
"""The unit of costs until somebody states a price."""
NOTHING = "–"


def percent(share: float | None) -> str:
    """0.714 -> "71 %"; 0.996 -> "99.6 %", for nothing short of all is 100 %, and nothing above none 0 %."""
    if share is None:
        return NOTHING
    nearly = 0 < share <= 0.005 or 0.995 <= share < 1
    return f"{100 * share:.{1 if nearly else 0}f} %"


def score_of_rows(score: float, rows: str, scored_by: ScoredBy) -> str:
    """0.71, "80 test rows" -> "71 % of 80 test rows right", or "a mean grade of 71 % on 80 test rows"."""
    share = percent(score)
    return f"{share} of {rows} right" if scored_by == "right" else f"a mean grade of {share} on {rows}"


def span(interval: Interval) -> str:
    """(0.62, 0.78) -> "62–78"."""
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f}"


def signed(difference: float) -> str:
    """0.24 -> "+24"; a minus sign that is one."""
    return f"{round(100 * difference):+d}".replace("-", "−").replace("+0", "±0")


def signed_span(interval: Interval) -> str:
    """(-0.02, 0.1) -> "−2 to +10"."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def points(difference: float) -> str:
    """0.24 -> "24 points"."""
    value = round(100 * difference)
    return "1 point" if value == 1 else f"{value} points"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: "0.4 s", "38 s", "5 min", "2.5 h"."""
    if seconds is None:
        return NOTHING
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms" if seconds else "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def amount(value: float | None, unit: str) -> str:
    """A cost in its unit: device seconds as a duration, money with its sign."""
    if value is None:
        return NOTHING
    if unit == DEVICE_SECONDS:
        return duration(value)
    if not value:
        return f"{unit}0"
    return f"{unit}{value:,.0f}" if value >= 100 else f"{unit}{value:.2f}" if value >= 0.1 else f"{unit}{value:.2g}"


def count(value: float) -> str:
    """12345 -> "12,000": two digits are all a break-even is worth."""
    if value < 100:
        return f"{value:.0f}"
    scale = 10 ** (len(str(round(value))) - 2)
    return f"{round(value / scale) * scale:,}"


def uses(count: int) -> str:
    """How often a test split was looked at, as far as is counted: 2 -> "2 times in this folder of runs"."""
    return f"{'once' if count == 1 else f'{count} times'} in this folder of runs"


def complaint(error: UserError) -> str:
    """What is wrong, where, and what to do about it, in one line."""
    place = f" ({error.place})" if error.place else ""
    return f"{error.message}{place}{f'; {error.remedy}' if error.remedy else ''}"


def size(memory_bytes: float) -> str:
    """2_140_000_000 -> "2.1 GB"."""
    return f"{memory_bytes / 1e9:.1f} GB"
