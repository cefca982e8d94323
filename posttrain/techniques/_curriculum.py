"""Which training rows reinforcement learning samples next."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from posttrain.types import Row

RATE = 0.05
"""How fast a kind's gain follows that of its groups."""

LEAST = 0.1
"""Of the largest gain: no kind is given up."""

Slices = tuple[str, ...]


class Curriculum:
    """Draws rows, each kind in an order of its own that is shuffled for every pass over it.

    Unless `focus`, all rows are of one kind.  Else a kind is what has the same slices, and it is drawn in proportion
    to its rows times what its groups of answers have lately had to gain: their best reward minus their mean.  That is
    0 where all are right, and where none is.
    """

    def __init__(self, rows: Sequence[Row], seed: int, *, focus: bool) -> None:
        self.seed, self.focus = seed, focus
        self.kinds: dict[Slices, list[Row]] = {}
        for row in rows:
            self.kinds.setdefault(self._kind(row), []).append(row)
        self.gains = dict.fromkeys(self.kinds, 1.0)
        self.drawn: Counter[Slices] = Counter()

    def draw(self, count: int) -> list[Row]:
        """The next `count` rows, or as many as there are."""
        taken: Counter[Slices] = Counter()
        source = random.Random(f"{self.seed}:{self.drawn.total()}")
        while taken.total() < min(count, sum(map(len, self.kinds.values()))):
            left = [kind for kind, rows in self.kinds.items() if taken[kind] < len(rows)]
            taken[source.choices(left, [self._weight(kind) for kind in left])[0]] += 1
        chosen = []
        for kind, number in taken.items():
            chosen += [self._row(kind, self.drawn[kind] + i) for i in range(number)]
        self.drawn += taken
        return chosen

    def learn(self, row: Row, rewards: Sequence[float]) -> None:
        """Takes note of what the answers to a row were rewarded with."""
        gain = max(rewards) - sum(rewards) / len(rewards)
        self.gains[self._kind(row)] += RATE * (gain - self.gains[self._kind(row)])

    def state(self) -> dict[str, list[float]]:
        """All that it has seen, by kind."""
        return {"gains": [*self.gains.values()], "drawn": [self.drawn[kind] for kind in self.kinds]}

    def restore(self, gains: Sequence[float], drawn: Sequence[int]) -> None:
        """Goes on from what `state` gave."""
        self.gains = dict(zip(self.kinds, gains, strict=True))
        self.drawn = Counter(dict(zip(self.kinds, drawn, strict=True)))

    def _kind(self, row: Row) -> Slices:
        return row.slices if self.focus else ()

    def _weight(self, kind: Slices) -> float:
        return len(self.kinds[kind]) * max(self.gains[kind], LEAST * max(self.gains.values()), 1e-9)

    def _row(self, kind: Slices, number: int) -> Row:
        rows = self.kinds[kind]
        epoch, offset = divmod(number, len(rows))
        return rows[_order(f"{self.seed}:{epoch}", len(rows))[offset]]


@lru_cache(maxsize=64)
def _order(seed: str, count: int) -> list[int]:
    return random.Random(seed).sample(range(count), count)
