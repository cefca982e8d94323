"""Which rows are drawn as worked examples."""

from __future__ import annotations

import random
from collections import Counter

from posttrain import tasks
from posttrain.techniques import few_shot
from posttrain.types import Message, Row


def drawn(rows: list[Row], count: int, seed: int) -> list[Row]:
    return few_shot.varied(rows, count, random.Random(seed))


def test_every_label_is_shown_before_one_is_shown_again() -> None:
    rows = [Row(str(i), (Message("user", str(i)),), "rare" if i % 20 == 7 else "often") for i in range(200)]
    for seed in range(5):
        assert Counter(row.target for row in drawn(rows, 4, seed)) == {"rare": 2, "often": 2}


def test_where_no_target_comes_twice_every_slice_is_shown() -> None:
    """Four sums in the prompt, and a model adds where it should subtract, whatever it is rewarded for."""
    rows = list(tasks.load("arithmetic:two_digit").rows("train"))
    for seed in range(5):
        assert Counter(row.slices for row in drawn(rows, 4, seed)) == {("sum",): 2, ("difference",): 2}


def test_another_seed_draws_others() -> None:
    rows = list(tasks.load("arithmetic:two_digit").rows("train"))
    assert drawn(rows, 4, 0) == drawn(rows, 4, 0) != drawn(rows, 4, 1)
