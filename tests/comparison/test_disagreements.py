"""The rows worth reading, and what more labelled rows would buy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_comparison import evaluation

from posttrain.comparison.disagreements import differing_rows, missed_alike
from posttrain.comparison.forecast import forecast
from posttrain.evaluation.record import Evaluation


def test_three_rows_of_both_directions_where_there_are_both() -> None:
    prompted = evaluation("few_shot", [False] * 6 + [True] * 2)
    taught = evaluation("sft", [True] * 6 + [False] * 2)
    rows = differing_rows(prompted, taught, n=3, seed=1)
    assert len({row.row_id for row in rows}) == 3
    assert sorted(row.first_outcome for row in rows) == [0, 0, 1]
    assert rows == differing_rows(prompted, taught, n=3, seed=1)
    for row in rows:
        assert (row.first_answer == row.target) == (row.first_outcome == 1)
        assert (row.second_answer == row.target) == (row.second_outcome == 1)
    assert differing_rows(taught, taught) == []
    assert len(differing_rows(evaluation("a", [True, True]), evaluation("b", [False, True]))) == 1


def test_of_grades_the_rows_that_differ_much() -> None:
    def graded(name: str, *values: float) -> Evaluation:
        plain = evaluation(name, [False] * len(values))
        attempts = tuple(replace(attempt, value=value) for attempt, value in zip(plain.attempts, values, strict=True))
        return replace(plain, attempts=attempts, scored_by="grade")

    rows = differing_rows(graded("a", 0.9, 0.5, 0.1, 0.7), graded("b", 0.2, 0.5, 0.6, 0.69), n=9)
    assert sorted((row.first_outcome, row.second_outcome) for row in rows) == [(0.1, 0.6), (0.9, 0.2)]
    assert differing_rows(graded("a", 0.4), graded("b", 0.4)) == []


def test_only_rows_that_all_good_candidates_miss_with_one_answer() -> None:
    outcomes = [True] * 30 + [False] * 3
    one, other, poor = evaluation("a", outcomes), evaluation("b", outcomes), evaluation("c", [False] * 30 + [True] * 3)
    missed = missed_alike([one, other, poor])
    assert [row.row_id for row in missed] == ["test-030", "test-031", "test-032"]  # c is no good: it is not asked
    assert missed[0].candidates == ("a", "b") and missed[0].answer != missed[0].target
    differently = replace(other.attempts[31], answer="something else")
    other = replace(other, attempts=(*other.attempts[:31], differently, other.attempts[32]))
    assert [row.row_id for row in missed_alike([one, other])] == ["test-030", "test-032"]
    assert missed_alike([one]) == [] and missed_alike([]) == []


def test_a_power_law_is_continued() -> None:
    curve = [(n, 1 - 4.0 * n**-0.5) for n in (50, 100, 200)]
    found = forecast(curve, scored_rows=2000)
    assert found.more == 200
    assert found.gain == pytest.approx(4 * 200**-0.5 - 4 * 400**-0.5)
    assert found.interval is not None and found.interval[0] < found.gain < found.interval[1]
    assert found.line[-1][0] == 400 and found.line[-1][1] == pytest.approx(1 - 4 * 400**-0.5)
    assert found.sentence.startswith("200 more rows: about +8 points (")


@pytest.mark.parametrize("curve", [[(50, 0.5), (100, 0.49), (200, 0.5)], [(50, 0.6), (100, 0.5), (200, 0.4)]])
def test_a_flat_or_falling_curve_carries_no_forecast(curve: list[tuple[int, float]]) -> None:
    found = forecast(curve, scored_rows=120)
    assert found.gain is None and "does not tell whether 200 more rows would help" in found.sentence


def test_two_sizes_carry_no_forecast() -> None:
    assert "three numbers" in forecast([(50, 0.4), (100, 0.5)], scored_rows=120).sentence


def test_perfect_scores_do_not_break_it() -> None:
    assert forecast([(50, 1.0), (100, 1.0), (200, 1.0)], scored_rows=120).gain is None
