"""A few rows that stand for all.  Files are often sorted by label, and their first rows then hold one label only."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def drawn(rows: Sequence[Item], count: int) -> tuple[Item, ...]:
    """The first `count` of the rows in a random order, which is always the same: every candidate is asked the same
    rows, and more of them include the fewer.  All of them, in their own order, when there are no more."""
    if count >= len(rows):
        return tuple(rows)
    order = random.Random(len(rows)).sample(range(len(rows)), len(rows))
    return tuple(rows[i] for i in order[:count])
