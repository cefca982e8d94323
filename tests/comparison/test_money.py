"""Every branch of DESIGN §6's money, with numbers worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posttrain.comparison.conclude import Settings
from posttrain.comparison.money import (
    BreakEven,
    Cost,
    Prices,
    StatedCost,
    break_even,
    device_cost,
    hosted_cost,
    payback,
    with_stated,
)
from posttrain.comparison.stated_costs import read_costs
from posttrain.types import TokensUsed, UserError

GOOD = 0.0  # a lower bound above -margin


def cost(one_off: float, *rows: float, standing: float = 0.0, unit: str = "$") -> Cost:
    return Cost(one_off, sum(rows) / len(rows), standing, unit, rows)


def test_costs_are_device_seconds_until_a_price_is_stated() -> None:
    seconds = device_cost(Prices(), one_off_seconds=120, request_seconds=[1.0, 3.0])
    assert (seconds.one_off, seconds.per_request, seconds.unit) == (120, 2.0, "device seconds")
    money = device_cost(Prices(per_hour=3.6), one_off_seconds=120, request_seconds=[1.0, 3.0])
    assert money.unit == "$"
    assert money.one_off == pytest.approx(0.12) and money.per_request == pytest.approx(0.002)
    assert money.rows == pytest.approx((0.001, 0.003))


def test_what_the_user_states_is_added_to_what_is_measured() -> None:
    stated = StatedCost(per_1000_requests=3, people=50, standing_per_month=20)
    measured = device_cost(Prices(per_hour=3.6), one_off_seconds=120, request_seconds=[1.0, 3.0])
    both = with_stated(measured, stated, "$")
    assert both is not None and both.rows == pytest.approx((0.004, 0.006))
    assert (both.one_off, both.per_request) == (pytest.approx(50.12), pytest.approx(0.005))
    assert with_stated(None, stated, "$") == Cost(50, 0.003, 20, "$")
    assert with_stated(measured, None, "$") is measured and with_stated(None, None, "$") is None


def test_a_stated_cost_is_the_same_for_every_row() -> None:
    stated, measured = Cost(0, 0.3, unit="$"), cost(10, 0.05, 0.1, 0.15)
    found = break_even(stated, measured, quality_low=GOOD)
    assert found.value == 50 and found.interval is not None and found.interval[0] < 50 < found.interval[1]
    assert break_even(Cost(0, 0.1, unit="$"), measured, quality_low=GOOD).verdict == "not determined"
    assert break_even(stated, Cost(10, 0.1, unit="$"), quality_low=GOOD) == BreakEven(50, None, "after 50 requests")


@pytest.mark.parametrize(("text", "line", "message"), [
    ("per_1000_requests = 1", 1, "under no candidate"), ("[ours]\nper_1000 = 1", 2, "no key 'per_1000'"),
    ("[ours]\npeople = -1", 2, "people of ours is -1"), ("[ours]\npeople = true", 2, "people of ours is True"),
    ("[ours]\npeople = inf", 2, "people of ours is inf"), ("[ours", 0, "not valid TOML")])
def test_a_mistake_in_stated_costs_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "costs.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_costs(path)
    assert caught.value.place == (f"{path}:{line}" if line else str(path)) and caught.value.remedy


@pytest.mark.parametrize("alone", ["input_per_million", "cached_per_million", "output_per_million"])
def test_a_price_of_tokens_alone_would_be_ignored(alone: str) -> None:
    with pytest.raises(UserError, match="go together"):
        Prices(**{alone: 1.0})


@pytest.mark.parametrize("amount", [math.nan, math.inf, -0.01])
def test_what_is_no_amount_is_refused_with_its_option(amount: float) -> None:
    options = {"per_hour": "--price-per-hour", "input_per_million": "--price-input",
               "cached_per_million": "--price-cached", "output_per_million": "--price-output"}
    for name, option in options.items():
        with pytest.raises(UserError, match="no amount") as caught:
            Prices(**{"input_per_million": 1.0, "output_per_million": 1.0} | {name: amount})
        assert caught.value.place == option and caught.value.remedy
    with pytest.raises(UserError, match="no amount"):
        StatedCost(people=amount)
    for volume in (amount, 0.0):
        with pytest.raises(UserError, match="no number of requests") as caught:
            Settings(volume_per_month=volume)
        assert caught.value.place == "--volume"
    assert Prices(per_hour=0).per_hour == 0 and Settings(volume_per_month=1).volume_per_month == 1


def test_finding_a_hosted_prompt_is_paid_for_once() -> None:
    prices = Prices(input_per_million=2.0, output_per_million=8.0)
    found = hosted_cost(prices, prompt_tokens=[1000], completion_tokens=[100], searching=TokensUsed(50_000, 1_000))
    assert found is not None and found.one_off == pytest.approx(0.1 + 0.008)


def test_hosted_costs_count_cached_tokens_at_their_price() -> None:
    prices = Prices(input_per_million=2.0, cached_per_million=0.5, output_per_million=8.0)
    found = hosted_cost(prices, prompt_tokens=[1000, 1000], completion_tokens=[100, 300], cached_tokens=[0, 800])
    assert found is not None
    assert found.rows == pytest.approx((0.0028, (200 * 2 + 800 * 0.5 + 300 * 8) / 1e6))
    assert hosted_cost(Prices(per_hour=1), prompt_tokens=[1], completion_tokens=[1]) is None
    full = hosted_cost(Prices(input_per_million=2.0, output_per_million=8.0), prompt_tokens=[1000],
                       completion_tokens=[0], cached_tokens=[1000])
    assert full is not None and full.per_request == pytest.approx(0.002)  # no cached price: the full one


def test_it_breaks_even_after_the_next_whole_request() -> None:
    found = break_even(cost(10, 0.3, 0.3), cost(21, 0.1, 0.1), quality_low=GOOD)
    assert found == BreakEven(55, (55, 55), "after 55 requests")  # 11 / 0.2
    assert break_even(cost(0, 0.3), cost(0.7, 0.2), quality_low=GOOD).value == 7  # not 8 by rounding error
    assert break_even(cost(0, 0.3), cost(0.71, 0.2), quality_low=GOOD).value == 8


def test_it_pays_from_the_first_request_when_nothing_costs_more() -> None:
    for taught in (cost(5, 0.1), cost(5, 0.2), cost(3, 0.2)):
        assert break_even(cost(5, 0.2), taught, quality_low=GOOD) == BreakEven(0, None, "from the first request")


def test_it_never_pays_when_everything_costs_more() -> None:
    for taught in (cost(6, 0.3), cost(6, 0.2)):
        assert break_even(cost(5, 0.2), taught, quality_low=GOOD) == BreakEven(None, None, "never")


def test_it_pays_only_below_some_requests_when_requests_cost_more() -> None:
    found = break_even(cost(10, 0.2), cost(5, 0.3), quality_low=GOOD)
    assert (found.value, found.verdict, found.only_at_first) == (50, "only below 50 requests", True)
    level = break_even(cost(5, 0.2), cost(5, 0.3), quality_low=GOOD)  # nothing more is spent once
    assert level == BreakEven(None, None, "never")
    assert payback(cost(5, 0.2), cost(5, 0.3), volume=100, quality_low=GOOD).verdict == "never"
    single = [break_even(cost(0, 0.3), cost(extra, 0.2), quality_low=GOOD).verdict for extra in (0.1, 0.2)]
    assert single == ["after 1 request", "after 2 requests"]


def test_being_cheaper_proves_nothing_when_quality_is_not_shown() -> None:
    reference, taught = cost(10, 0.3), cost(21, 0.1)
    assert break_even(reference, taught, quality_low=-0.02).verdict == "cheaper, not shown as good"
    assert break_even(reference, taught, quality_low=-0.019).value == 55
    assert break_even(reference, taught, quality_low=-0.04, margin=0.05).value == 55
    assert break_even(taught, reference, quality_low=-0.5).verdict == "not shown as good"
    assert payback(reference, taught, volume=100, quality_low=-0.5).verdict == "cheaper, not shown as good"


def test_it_is_not_determined_when_the_saving_may_be_nothing() -> None:
    found = break_even(cost(0, 0.1, 0.9, 0.2, 0.8), cost(10, 0.8, 0.1, 0.9, 0.1), quality_low=GOOD)
    assert found == BreakEven(None, None, "not determined")


def test_the_interval_comes_from_pairing_the_rows() -> None:
    reference, taught = cost(0, 1.0, 2.0, 3.0), cost(9, 0.7, 1.7, 2.7)
    exact = break_even(reference, taught, quality_low=GOOD)  # every row saves 0.3, however unlike the rows are
    assert exact.value == 30 and exact.interval == pytest.approx((30, 30))
    spread = break_even(cost(0, 1.0, 2.0, 3.0), cost(10, 0.9, 1.5, 2.4), quality_low=GOOD, seed=1)
    assert spread.value == 25 and spread.interval is not None
    assert spread.interval[0] < 25 < spread.interval[1]
    assert spread == break_even(cost(0, 1.0, 2.0, 3.0), cost(10, 0.9, 1.5, 2.4), quality_low=GOOD, seed=1)
    unpaired = break_even(cost(0, 1.0, 2.0, 3.0), cost(9, 0.5, 0.7), quality_low=GOOD)  # measured on other rows
    assert unpaired.value == 7 and unpaired.interval is not None and unpaired.interval[0] < 7 < unpaired.interval[1]


def test_unknown_and_unlike_costs_are_said_to_be_so() -> None:
    assert "not known" in break_even(None, cost(1, 1), quality_low=GOOD).verdict
    assert "not comparable" in break_even(cost(1, 1, unit="device seconds"), cost(1, 1), quality_low=GOOD).verdict
    found = break_even(cost(0, 0.3), cost(1, 0.1, standing=20), quality_low=GOOD)
    assert found.value is None and "volume" in found.verdict


def test_payback_counts_standing_costs() -> None:
    reference, taught = cost(0, 0.3), cost(500, 0.1, standing=100)
    found = payback(reference, taught, volume=1000, quality_low=GOOD)  # 1000 * 0.2 - 100 = 100 a month
    assert found.value == pytest.approx(5) and found.verdict == "after 5.0 months"
    assert payback(reference, taught, volume=400, quality_low=GOOD).verdict == "never"
    assert payback(reference, cost(0, 0.1), volume=10, quality_low=GOOD).verdict == "at once"
    short = payback(cost(100, 0.1), cost(0, 0.2), volume=100, quality_low=GOOD)  # loses 10 a month after saving 100
    assert short.value == pytest.approx(10) and short.only_at_first
    noisy = payback(cost(0, 0.3, 0.5, 0.1), cost(500, 0.1, 0.1, 0.1, standing=190), volume=1000, quality_low=GOOD)
    assert noisy.verdict == "not determined"


def test_what_is_paid_back_in_days_is_not_said_to_take_no_time() -> None:
    found = payback(cost(0, 0.3), cost(1, 0.1), volume=1000, quality_low=GOOD)
    assert found.value == pytest.approx(0.005) and found.verdict == "after less than 0.1 months"


def test_alike_costs_measured_on_different_numbers_of_rows_leave_nothing_to_divide_by() -> None:
    """The mean of three tenths is not a tenth in binary: what is left of the difference is rounding."""
    found = break_even(cost(0, 0.1, 0.1, 0.1), cost(5, 0.1), quality_low=GOOD)
    assert found == BreakEven(None, None, "never")
    assert break_even(cost(5, 0.1, 0.1, 0.1), cost(5, 0.1), quality_low=GOOD).verdict == "from the first request"
    assert payback(cost(0, 0.1, 0.1, 0.1), cost(5, 0.1), volume=1e6, quality_low=GOOD).verdict == "never"


def test_a_saving_that_standing_costs_eat_up_is_not_divided_by() -> None:
    """The interval ends at zero to twelve digits, the saving itself a little above."""
    found = payback(cost(0, 0.1234567890123456), cost(5, 0.0, standing=123456.789012), volume=1e6, quality_low=GOOD)
    assert found == BreakEven(None, None, "not determined")


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.001, 10), st.floats(0.001, 10))
@example(6.0, 5.0, 1.0, 2.0)
@example(5.0, 5.0, 1.0, 2.0)
@example(0.0, 1.0, 1.1000000000000003, 1.1)
@example(0.0, 0.7, 0.3, 0.2)
def test_break_even_is_where_the_totals_cross(f_p: float, f_t: float, c_p: float, c_t: float) -> None:
    """Exactly: the request before, the taught one is still the dearer (or, only at first, still the cheaper) one."""
    found = break_even(cost(f_p, c_p), cost(f_t, c_t), quality_low=GOOD)
    if found.value is None:
        assert found.verdict == "never" and f_t >= f_p and c_t >= c_p
        return

    def saved(requests: float) -> Fraction:
        exact = [Fraction(repr(number)) for number in (f_p, f_t, c_p, c_t)]
        return exact[0] - exact[1] + int(requests) * (exact[2] - exact[3])

    n = found.value
    if found.only_at_first:
        assert n >= 1 and saved(n - 1) > 0 >= saved(n)
    else:
        assert saved(n) >= 0 and (n == 0 or saved(n - 1) < 0)
