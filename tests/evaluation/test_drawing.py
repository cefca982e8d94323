"""The few rows that stand for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluation.drawing import drawn


@given(st.integers(0, 60), st.integers(0, 70), st.integers(0, 70))
def test_more_rows_include_the_fewer_and_every_time_they_are_the_same(rows: int, count: int, other: int) -> None:
    few, many = drawn(range(rows), min(count, other)), drawn(range(rows), max(count, other))
    assert len(few) == min(rows, count, other) and len(set(few)) == len(few) and set(few) <= set(many)
    assert few == drawn(range(rows), min(count, other))


def test_all_keep_their_order_and_few_are_from_everywhere() -> None:
    assert drawn("abc", 3) == drawn("abc", 9) == ("a", "b", "c")
    sorted_by_label = [label for label in range(8) for _ in range(25)]
    assert len(set(drawn(sorted_by_label, 20))) >= 6, "the first twenty hold one label"
