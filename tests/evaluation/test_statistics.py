"""Statistics against published numbers, brute force, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from posttrain.evaluation.statistics import (
    Pairs,
    bootstrap_interval,
    detectable_difference,
    detectable_mean_difference,
    difference_of_means,
    difference_of_shares,
    holm,
    mcnemar_p_value,
    mean_interval,
    newcombe_interval,
    power,
    rows_needed,
    wilson_interval,
    word,
)

COUNTS = st.integers(0, 60)
TABLES = st.builds(Pairs, COUNTS, COUNTS, COUNTS, COUNTS).filter(lambda pairs: pairs.n > 0)


def test_wilson_is_the_formula_worked_by_hand() -> None:
    z, share, n = 1.959964, 0.7, 120
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson_interval(84, 120) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert wilson_interval(0, 10)[0] == 0 and wilson_interval(10, 10)[1] == 1
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError):
        wilson_interval(3, 2)


@given(st.integers(1, 10_000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(n: int, share: float, level: float) -> None:
    passed = round(share * n)
    theirs = scipy.stats.binomtest(passed, n).proportion_ci(level, method="wilson")
    assert wilson_interval(passed, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("table", "interval"), [
    # Fagerland, Lydersen, Laake 2014 (Statistics in Medicine 33:2850): airway reactivity, and consolidation therapy
    (Pairs(1, 1, 7, 12), (-0.507, -0.026)),
    (Pairs(59, 6, 16, 80), (-0.119, -0.005)),
    # Altman et al., Statistics with Confidence (2000), table 6.2
    (Pairs(14, 5, 0, 22), (0.011, 0.226)),
])
def test_newcombe_interval_is_the_published_one(table: Pairs, interval: tuple[float, float]) -> None:
    assert newcombe_interval(table) == pytest.approx(interval, abs=1.5e-3)


@given(TABLES)
def test_newcombe_interval_holds_the_difference_and_mirrors(pairs: Pairs) -> None:
    low, high = newcombe_interval(pairs)
    assert -1 <= low <= pairs.difference + 1e-12 and pairs.difference - 1e-12 <= high <= 1
    mirrored = newcombe_interval(Pairs(pairs.both, pairs.second, pairs.first, pairs.neither))
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


@given(TABLES)
def test_mcnemar_agrees_with_statsmodels(pairs: Pairs) -> None:
    theirs = mcnemar([[pairs.both, pairs.first], [pairs.second, pairs.neither]], exact=True).pvalue
    assert mcnemar_p_value(pairs) == pytest.approx(min(1.0, theirs), rel=1e-9)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_p_value(Pairs(10, 6, 0, 4)) == pytest.approx(2 * 0.5**6)
    assert mcnemar_p_value(Pairs(10, 0, 0, 4)) == 1


def test_pairs_are_counted() -> None:
    pairs = Pairs.count([True, True, False, False, True], [True, False, True, False, False])
    assert pairs == Pairs(1, 2, 1, 1)
    assert (pairs.difference, pairs.discordance, pairs.churn) == (0.2, 0.6, 0.4)
    with pytest.raises(ValueError):
        Pairs.count([True], [True, False])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_intervals_cover_what_they_promise() -> None:
    """2,000 experiments of 60 paired rows; 95 % intervals may miss at most about 5 % (standard error 0.5 %)."""
    cells, n = np.array([0.45, 0.2, 0.1, 0.25]), 60
    tables = np.random.default_rng(0).multinomial(n, cells, size=2000)
    paired, single = 0, 0
    for both, first, second, neither in tables:
        pairs = Pairs(int(both), int(first), int(second), int(neither))
        low, high = newcombe_interval(pairs)
        paired += low <= 0.1 <= high
        low, high = wilson_interval(pairs.both + pairs.first, n)
        single += low <= 0.65 <= high
    assert 0.94 <= paired / 2000 <= 0.985
    assert 0.93 <= single / 2000 <= 0.975


def test_bootstrap_interval_covers_and_is_seeded() -> None:
    draws = np.random.default_rng(1)
    covered = 0
    for i in range(200):
        low, high = bootstrap_interval(draws.normal(0.3, 1, 40).tolist(), seed=i, resamples=1000)
        covered += low <= 0.3 <= high
    assert 0.88 <= covered / 200 <= 0.99
    values = [1.0, 2.0, 4.0, 8.0]
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval([3.0] * 7, seed=0) == (3.0, 3.0)
    with pytest.raises(ValueError):
        bootstrap_interval([], seed=0)


@pytest.mark.parametrize(("interval", "p_value", "said"), [
    ((0.01, 0.2), 0.01, "better"), ((0.01, 0.2), 0.06, "no worse"), ((-0.019, 0.2), 0.5, "no worse"),
    ((-0.02, 0.2), 0.5, "cannot tell"), ((-0.3, -0.1), 0.01, "worse"), ((-0.3, -0.1), 0.06, "cannot tell"),
    ((-0.015, -0.005), 0.001, "no worse"),
])
def test_words(interval: tuple[float, float], p_value: float, said: str) -> None:
    assert word(interval, p_value, margin=0.02) == said


@pytest.mark.parametrize(("n", "difference", "discordance"), [(7, 0.5, 0.7), (8, 0.3, 0.6), (6, 1.0, 1.0)])
def test_power_is_the_sum_over_all_tables(n: int, difference: float, discordance: float) -> None:
    first, second = (discordance + difference) / 2, (discordance - difference) / 2
    total = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b <= n and mcnemar_p_value(Pairs(0, a, b, n - a - b)) <= 0.05:
            ways = math.comb(n, a) * math.comb(n - a, b)
            total += ways * first**a * max(0.0, second)**b * (1 - discordance) ** (n - a - b)
    assert power(n, difference, discordance) == pytest.approx(total, abs=1e-9)


def test_detectable_difference_is_where_power_reaches_80_percent() -> None:
    found = detectable_difference(120, churn=0.12)
    assert found is not None and 0.12 < found < 0.14  # "cannot tell differences below 13 points with n=120"
    assert power(120, found, 0.12 + found) == pytest.approx(0.8, abs=0.01)
    smaller = detectable_difference(1000, churn=0.12)
    assert smaller is not None and smaller < found
    assert detectable_difference(5) is None


@pytest.mark.parametrize("seed", range(12))
def test_a_difference_of_means_agrees_with_the_t_test(seed: int) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.beta(2, 2 + seed % 3, 80).tolist(), draw.beta(2, 2, 80).tolist()
    differences = np.subtract(first, second)
    found, wanted = difference_of_means(first, second), scipy.stats.ttest_rel(first, second)
    assert found.value == pytest.approx(differences.mean())
    assert found.p_value == pytest.approx(wanted.pvalue, abs=0.03)
    low, high = wanted.confidence_interval()
    assert found.interval == pytest.approx((low, high), abs=0.15 * (high - low))
    assert found.discordance == pytest.approx(np.mean(differences**2))


@pytest.mark.parametrize("n", [10, 40])
def test_intervals_of_grades_cover_though_most_are_perfect(n: int) -> None:
    draw, mean, paired, single, shown = np.random.default_rng(n), 0.9 + 0.1 * 2 / 6, 0, 0, 0
    for _ in range(300):
        one, other = (np.where(draw.random(n) < 0.9, 1.0, draw.beta(2, 4, n)) for _ in range(2))
        low, high = mean_interval(one.tolist())
        single += low <= mean <= high
        found = difference_of_means(one.tolist(), other.tolist())
        paired += found.interval[0] <= 0 <= found.interval[1]
        shown += found.p_value < 0.05
    assert single >= 0.93 * 300 and paired >= 0.93 * 300 and shown <= 0.07 * 300
    low, high = mean_interval([1.0] * 10)
    assert 0.6 < low < 0.85 and high == 1.0, "ten perfect answers do not show that all will be"


def test_a_difference_of_means_at_its_ends() -> None:
    same = difference_of_means([0.2, 0.9, 0.4], [0.2, 0.9, 0.4])
    assert (same.value, same.p_value, same.discordance) == (0.0, 1.0, 0.0)
    assert same.interval == pytest.approx((-0.6, 0.6), abs=0.21), "three equal rows do not show two candidates equal"
    clear = difference_of_means([0.9, 0.8, 0.85] * 20, [0.1, 0.2, 0.1] * 20)
    assert clear.p_value == pytest.approx(1 / 10_001) and clear.interval[0] > 0.6
    outcomes = [True, True, False, True, False] * 8, [False, True, True, False, False] * 8
    shares, means = difference_of_shares(*outcomes), difference_of_means(*outcomes)
    assert means.value == pytest.approx(shares.value) and means.discordance == pytest.approx(shares.discordance)
    assert means.interval == pytest.approx(shares.interval, abs=0.03)


def test_what_rows_can_show_of_means_and_how_many_it_takes_agree() -> None:
    for n, variance in ((100, 0.1), (500, 0.02)):
        found = detectable_mean_difference(n, variance)
        assert found is not None and rows_needed(found, variance + found**2) == pytest.approx(n, rel=0.3)
    equal = detectable_mean_difference(120, 0.0)
    assert equal is not None and 0.02 < equal < 0.05, "candidates that tie do not show that any difference would be seen"
    assert detectable_mean_difference(0) is None and detectable_mean_difference(1, 0.5) is None


def test_rows_needed_agrees_with_published_sizes() -> None:
    assert rows_needed(0.1, 0.2) == pytest.approx(155, abs=3)
    assert rows_needed(0.05, 0.3) == pytest.approx(940, abs=4)
    assert rows_needed(-0.1, 0.2) == rows_needed(0.1, 0.2)
    assert rows_needed(0.0, 0.2) is None
