"""What an answer costs, and after how many requests teaching has paid for itself (DESIGN §6).

A cost has three parts: F once (search and training, people), c per request, H standing per month.  With the
reference's F_p, c_p, H_p and the taught candidate's F_t, c_t, H_t, and equal H, they break even after

    N* = ceil((F_t - F_p) / (c_p - c_t))  requests

and with a volume of V requests a month, saving s = V (c_p - c_t) - (H_t - H_p), after (F_t - F_p) / s months.
The unit is device seconds until somebody states a price: money is never invented.  Break-even points are worked out
in fractions, because a quotient of rounded numbers is easily one request off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from posttrain.comparison.wording import DEVICE_SECONDS, count
from posttrain.evaluation.statistics import MARGIN, Interval, bootstrap_difference
from posttrain.types import TokensUsed, UserError

OPTIONS = {
    "per_hour": "--price-per-hour",
    "input_per_million": "--price-input",
    "cached_per_million": "--price-cached",
    "output_per_million": "--price-output",
}
"""The option that states each price."""


def refuse_odd_amount(amount: float | None, place: str) -> None:
    """Raises UserError for what is no amount: less than nothing, infinite or not a number."""
    if amount is not None and not 0 <= amount < math.inf:
        raise UserError(f"{amount:g} is no amount", place=place, remedy="give a number, 0 or more")


@dataclass(frozen=True)
class Prices:
    """What the user states: per hour of the device; per million tokens of a hosted model."""

    per_hour: float | None = None
    input_per_million: float | None = None
    cached_per_million: float | None = None  # None: cached tokens cost what others cost
    output_per_million: float | None = None
    currency: str = "$"

    def __post_init__(self) -> None:
        """Raises UserError for a price that is none, and for one of tokens that no cost could be made of."""
        for name, option in OPTIONS.items():
            refuse_odd_amount(getattr(self, name), option)
        tokens = (self.input_per_million, self.cached_per_million, self.output_per_million)
        if set(tokens) != {None} and None in (self.input_per_million, self.output_per_million):
            raise UserError(
                "prices of tokens go together", place="--price-input --price-output", remedy="state both, 0 for none"
            )


@dataclass(frozen=True)
class StatedCost:
    """What a candidate costs that nothing here can measure: in money, and beside what is measured."""

    per_1000_requests: float = 0.0
    people: float = 0.0  # once
    standing_per_month: float = 0.0

    def __post_init__(self) -> None:
        """Raises UserError for an amount that is none."""
        for name, amount in vars(self).items():
            refuse_odd_amount(amount, name)


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


NOTHING_TO_PAY_BACK = BreakEven(None, None, "nothing to pay back")
"""Of the reference, and where there is none."""


def device_cost(prices: Prices, *, one_off_seconds: float, request_seconds: Sequence[float]) -> Cost:
    """Cost of a candidate that runs on our device.

    `one_off_seconds` are search and training; `request_seconds` busy device seconds of each measured row.
    """
    if not request_seconds:
        raise ValueError("no request was measured")
    second = 1.0 if prices.per_hour is None else prices.per_hour / 3600
    rows = tuple(seconds * second for seconds in request_seconds)
    unit = DEVICE_SECONDS if prices.per_hour is None else prices.currency
    return Cost(one_off_seconds * second, sum(rows) / len(rows), unit=unit, rows=rows)


def hosted_cost(
    prices: Prices,
    *,
    prompt_tokens: Sequence[int],
    completion_tokens: Sequence[int],
    cached_tokens: Sequence[int] = (),
    searching: TokensUsed = TokensUsed(),
) -> Cost | None:
    """Cost of a hosted model, row by row; None when the user stated no token prices.

    `cached_tokens` are part of `prompt_tokens`; `searching` is what finding the prompt took.
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
    one_off = (
        (searching.prompt - searching.cached) * prices.input_per_million
        + searching.cached * cached_price
        + searching.completion * prices.output_per_million
    )
    return Cost(one_off / 1e6, sum(rows) / len(rows), unit=prices.currency, rows=rows)


def with_stated(measured: Cost | None, stated: StatedCost | None, currency: str) -> Cost | None:
    """What was measured (None: nothing, as of answers that were given) and what the user states beside it."""
    if stated is None:
        return measured
    measured = measured or Cost(0.0, 0.0, unit=currency)
    more = stated.per_1000_requests / 1000
    return Cost(
        measured.one_off + stated.people,
        measured.per_request + more,
        stated.standing_per_month,
        currency,
        tuple(cost + more for cost in measured.rows),
    )


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
    extra = _exact(taught.one_off) - _exact(reference.one_off)
    saving = _per_request(reference) - _per_request(taught)
    found = _settle(extra, saving, _saving_interval(reference, taught, seed))
    if isinstance(found, str):
        return BreakEven(None, None, found)
    value, interval = math.ceil(found.after), found.ends and (math.ceil(found.ends[0]), math.ceil(found.ends[1]))
    if found.only_at_first:
        return BreakEven(value, interval, f"only below {_requests(value)}")
    return BreakEven(value, interval, f"after {_requests(value)}" if value else "from the first request")


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
    extra = _exact(taught.one_off) - _exact(reference.one_off)
    standing = _exact(taught.standing_per_month) - _exact(reference.standing_per_month)
    requests = _exact(volume)
    per_request = _saving_interval(reference, taught, seed)
    interval = per_request and (requests * per_request[0] - standing, requests * per_request[1] - standing)
    found = _settle(extra, requests * (_per_request(reference) - _per_request(taught)) - standing, interval)
    if isinstance(found, str):
        return BreakEven(None, None, found)
    months, ends = float(found.after), found.ends and (float(found.ends[0]), float(found.ends[1]))
    if not months:
        return BreakEven(0.0, ends, "at once")
    how_long = f"{months:,.1f} months" if months >= 0.05 else "less than 0.1 months"
    return BreakEven(months, ends, f"only in the first {how_long}" if found.only_at_first else f"after {how_long}")


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


def _requests(number: float) -> str:
    return "1 request" if number == 1 else f"{count(number)} requests"


def _exact(value: float) -> Fraction:
    """A number as it is written: 0.1 is a tenth, not the binary fraction next to it."""
    return Fraction(repr(value))


def _per_request(cost: Cost) -> Fraction:
    """The cost of a request, without the rounding of the sum its mean was made from."""
    return sum(map(_exact, cost.rows), Fraction(0)) / len(cost.rows) if cost.rows else _exact(cost.per_request)


def _saving_interval(reference: Cost, taught: Cost, seed: int) -> tuple[Fraction, Fraction] | None:
    """Interval of the saving per request: bootstrap over rows.  A stated cost is the same for all of them; where both
    are stated there is no interval."""
    if not reference.rows and not taught.rows:
        return None
    costs, theirs = reference.rows or (reference.per_request,), taught.rows or (taught.per_request,)
    low, high = bootstrap_difference(costs, theirs, seed=seed)
    return Fraction(f"{low:.12g}"), Fraction(f"{high:.12g}")  # further digits came out of binary rounding


@dataclass(frozen=True)
class _Crossing:
    """After how many requests (or months) two total costs are level, and its interval."""

    after: Fraction
    ends: tuple[Fraction, Fraction] | None = None
    only_at_first: bool = False


def _settle(extra: Fraction, saving: Fraction, interval: tuple[Fraction, Fraction] | None) -> _Crossing | str:
    """`extra` paid once against `saving` per request or month, or why they do not cross.

    The interval of the saving must leave no doubt of its sign.
    """
    if interval and interval[0] <= 0 <= interval[1] and interval != (saving, saving):
        return "not determined"
    if extra <= 0 <= saving:
        return _Crossing(Fraction(0))
    if saving <= 0 <= extra:
        return "never"
    ends = sorted(extra / end for end in interval) if interval else None
    return _Crossing(extra / saving, (ends[0], ends[1]) if ends else None, only_at_first=saving < 0)
