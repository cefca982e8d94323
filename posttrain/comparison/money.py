"""What an answer costs, and after how many requests teaching has paid for itself (DESIGN §6).

A cost has three parts: F once (search and training, people), c per request, H standing per month.  With the
reference's F_p, c_p, H_p and the taught candidate's F_t, c_t, H_t, and equal H, they break even after

    N* = ceil((F_t - F_p) / (c_p - c_t))  requests

and with a volume of V requests a month, saving s = V (c_p - c_t) - (H_t - H_p), after (F_t - F_p) / s months.
The unit is device seconds until somebody states a price: money is never invented.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.comparison.wording import DEVICE_SECONDS, count
from posttrain.evaluation.statistics import MARGIN, Interval, bootstrap_difference
from posttrain.types import UserError


@dataclass(frozen=True)
class Prices:
    """What the user states: per hour of the device; per million tokens of a hosted model."""

    per_hour: float | None = None
    input_per_million: float | None = None
    cached_per_million: float | None = None  # None: cached tokens cost what others cost
    output_per_million: float | None = None
    currency: str = "$"


@dataclass(frozen=True)
class Cost:
    """Cost of a candidate in `unit`: once, per request (mean over `rows`, where they were measured), per month."""

    one_off: float
    per_request: float
    standing_per_month: float = 0.0
    unit: str = DEVICE_SECONDS
    rows: tuple[float, ...] = ()


@dataclass(frozen=True)
class BreakEven:
    """When teaching has paid: `value` in requests (or months), None where the verdict says why there is none."""

    value: float | None
    interval: Interval | None
    verdict: str

    @property
    def only_at_first(self) -> bool:
        """Cheaper up to `value`, dearer after."""
        return self.verdict.startswith("only")


def device_cost(
    prices: Prices,
    *,
    one_off_seconds: float,
    request_seconds: Sequence[float],
    people: float = 0.0,
    standing_per_month: float = 0.0,
) -> Cost:
    """Cost of a candidate that runs on our device.

    `one_off_seconds` are search and training; `request_seconds` busy device seconds of each measured row;
    `people` and `standing_per_month` are money, which only means something beside a price per hour.
    """
    if not request_seconds:
        raise ValueError("no request was measured")
    if prices.per_hour is None and (people or standing_per_month):
        raise UserError(
            "people's time and standing costs are money, device time has no price",
            place="prices",
            remedy="state the price of the device per hour",
        )
    second = 1.0 if prices.per_hour is None else prices.per_hour / 3600
    rows = tuple(seconds * second for seconds in request_seconds)
    unit = DEVICE_SECONDS if prices.per_hour is None else prices.currency
    return Cost(one_off_seconds * second + people, sum(rows) / len(rows), standing_per_month, unit, rows)


def hosted_cost(
    prices: Prices,
    *,
    prompt_tokens: Sequence[int],
    completion_tokens: Sequence[int],
    cached_tokens: Sequence[int] = (),
    one_off: float = 0.0,
    standing_per_month: float = 0.0,
) -> Cost | None:
    """Cost of a hosted model, row by row; None when the user stated no token prices.

    `cached_tokens` are part of `prompt_tokens`; `one_off` is money already spent on searching a prompt.
    """
    if prices.input_per_million is None or prices.output_per_million is None:
        return None
    if not prompt_tokens:
        raise ValueError("no request was measured")
    cached_price = prices.input_per_million if prices.cached_per_million is None else prices.cached_per_million
    rows = tuple(
        ((prompt - cached) * prices.input_per_million + cached * cached_price + completion * prices.output_per_million)
        / 1e6
        for prompt, completion, cached in zip(
            prompt_tokens, completion_tokens, cached_tokens or [0] * len(prompt_tokens), strict=True
        )
    )
    return Cost(one_off, sum(rows) / len(rows), standing_per_month, prices.currency, rows)


def break_even(
    reference: Cost | None, taught: Cost | None, *, quality_low: float, margin: float = MARGIN, seed: int = 0
) -> BreakEven:
    """After how many requests `taught` is the cheaper one.

    `quality_low` is the lower bound of its score minus the reference's: at -margin or below, being cheaper
    proves nothing.  Standing costs must be equal, else only `payback` with a volume can tell.
    """
    refused = _refused(reference, taught, quality_low, margin)
    if refused or reference is None or taught is None:
        return BreakEven(None, None, refused)
    if reference.standing_per_month != taught.standing_per_month:
        return BreakEven(None, None, "depends on the volume: standing costs differ")
    extra, saving = taught.one_off - reference.one_off, reference.per_request - taught.per_request
    found = _settle(extra, saving, _saving_interval(reference, taught, seed))
    if found.value is None:
        return found
    value, interval = _ceil(found.value), found.interval and (_ceil(found.interval[0]), _ceil(found.interval[1]))
    if found.only_at_first:
        return BreakEven(value, interval, f"only below {count(value)} requests")
    return BreakEven(value, interval, f"after {count(value)} requests" if value else "from the first request")


def payback(
    reference: Cost | None,
    taught: Cost | None,
    *,
    volume: float,
    quality_low: float,
    margin: float = MARGIN,
    seed: int = 0,
) -> BreakEven:
    """After how many months at `volume` requests a month `taught` has paid for itself."""
    refused = _refused(reference, taught, quality_low, margin)
    if refused or reference is None or taught is None:
        return BreakEven(None, None, refused)
    extra, standing = taught.one_off - reference.one_off, taught.standing_per_month - reference.standing_per_month
    saving = volume * (reference.per_request - taught.per_request) - standing
    per_request = _saving_interval(reference, taught, seed)
    interval = per_request and (volume * per_request[0] - standing, volume * per_request[1] - standing)
    found = _settle(extra, saving, interval)
    if found.value is None:
        return found
    if found.only_at_first:
        return BreakEven(found.value, found.interval, f"only in the first {found.value:.1f} months")
    return BreakEven(found.value, found.interval, f"after {found.value:.1f} months" if found.value else "at once")


def _refused(reference: Cost | None, taught: Cost | None, quality_low: float, margin: float) -> str:
    """Why there is no answer whatever the numbers; empty when there may be one."""
    if reference is None or taught is None:
        return "not known: no price stated"
    if reference.unit != taught.unit:
        return f"not comparable: {reference.unit} against {taught.unit}"
    if quality_low <= -margin:
        cheaper = taught.per_request < reference.per_request
        return "cheaper, not shown as good" if cheaper else "not shown as good"
    return ""


def _saving_interval(reference: Cost, taught: Cost, seed: int) -> Interval | None:
    """Interval of the saving per request: bootstrap over rows.  None where rows were not measured."""
    if not reference.rows or not taught.rows:
        return None
    return bootstrap_difference(reference.rows, taught.rows, seed=seed)


def _settle(extra: float, saving: float, interval: Interval | None) -> BreakEven:
    """`extra` paid once against `saving` per request or month; the interval must leave no doubt of its sign."""
    if interval and interval[0] < interval[1] and interval[0] <= 0 <= interval[1]:
        return BreakEven(None, None, "not determined")
    if extra <= 0 and saving >= 0:
        return BreakEven(0.0, None, "at once")
    if extra >= 0 and saving <= 0:
        return BreakEven(None, None, "never")
    ends = sorted(extra / end for end in interval) if interval else None
    return BreakEven(extra / saving, (ends[0], ends[1]) if ends else None, "later" if extra > 0 else "only at first")


def _ceil(value: float) -> int:
    """The next whole number; 7.000000000001 is 7, because it came out of a division."""
    return math.ceil(value * (1 - 1e-12))
