"""One file into train, dev and test: every label in proportion, near-duplicates on one side."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

SHARES = {"train": 0.60, "dev": 0.15, "test": 0.25}
"""Of the rows of one file."""
SHARES_WITH_TEST = {"train": 0.80, "dev": 0.20}
"""Of the rows beside a test file."""
RARE = 4
"""Strata of fewer rows are pooled: they cannot be divided in proportion."""


def assign(groups: Sequence[int], strata: Sequence[str], shares: Mapping[str, float], *, seed: int) -> list[str]:
    """The split of each row.  Rows of one group stay together.

    Groups go, largest first and else in random order, to the split that is furthest below its share of the group's
    stratum (the commonest among its rows), and, between equals, furthest below its share of all rows.  So a
    stratum without large groups is off its share by less than one row.
    """
    sizes = Counter(strata)
    pooled = [stratum if sizes[stratum] >= RARE else "" for stratum in strata]
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    order = list(members.values())
    random.Random(seed).shuffle(order)
    order.sort(key=len, reverse=True)
    missing = {
        stratum: {split: share * count for split, share in shares.items()} for stratum, count in Counter(pooled).items()
    }
    missing_overall = {split: share * len(groups) for split, share in shares.items()}
    splits = [""] * len(groups)
    for rows in order:
        wanted = missing[Counter(pooled[row] for row in rows).most_common(1)[0][0]]
        chosen = max(shares, key=lambda split: (round(wanted[split], 9), missing_overall[split]))
        for row in rows:
            splits[row] = chosen
            missing[pooled[row]][chosen] -= 1
            missing_overall[chosen] -= 1
    return splits
