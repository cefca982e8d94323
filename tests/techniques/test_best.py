"""Which policy is kept, from outcomes on 200 dev rows."""

import pytest

from posttrain.techniques._best import Best


def outcomes(right: int) -> list[float]:
    return [float(i < right) for i in range(200)]


def judge(best: Best, step: int, right: int) -> str:
    return best.judge(step, (right / 200, right / 200), outcomes(right))


def test_any_higher_score_is_the_best_while_none_was_worse_beyond_chance() -> None:
    best = Best()
    assert [judge(best, step, right) for step, right in enumerate((40, 41, 39, 41, 42))] == [
        "best", "best", "neither", "neither", "best"]
    assert (best.step, best.score) == (4, (0.21, 0.21))
    assert best.gain[0] <= 0 < best.gain[1]


def test_of_equal_scores_the_values_decide() -> None:
    best = Best()
    assert best.judge(0, (0.2, 0.2), outcomes(40)) == "best"
    assert best.judge(1, (0.2, 0.3), outcomes(40)) == "best"


def test_once_one_was_worse_beyond_chance_luck_is_not_enough() -> None:
    best = Best()
    assert [judge(best, step, right) for step, right in enumerate((40, 0, 42, 48, 2))] == [
        "best", "worse", "neither", "best", "worse"]
    assert (best.step, best.worse) == (3, 2)
    assert best.gain[0] > 0


def test_what_is_better_on_some_rows_and_worse_on_as_many_is_neither() -> None:
    best = Best()
    judge(best, 0, 40), judge(best, 1, 0)
    mixed = [float(20 <= i < 65) for i in range(200)]  # gained 25, lost 20
    assert best.judge(2, (0.225, 0.225), mixed) == "neither"
    assert best.gain == pytest.approx((-1 / 202, 1 / 202), abs=0.02)
