"""How numbers are said."""

from __future__ import annotations

from posttrain.comparison import wording


def test_nothing_short_of_all_is_100_percent() -> None:
    said = [wording.percent(right / 200) for right in (0, 1, 3, 100, 199, 200)]
    assert said == ["0 %", "0.5 %", "2 %", "50 %", "99.5 %", "100 %"]
    assert wording.percent(1 / 1000) == "0.1 %" and wording.percent(None) == wording.NOTHING


def test_uses_of_a_test_split_are_those_that_are_counted() -> None:
    assert [wording.uses(count) for count in (1, 3)] == ["once in this folder of runs", "3 times in this folder of runs"]
