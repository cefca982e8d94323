"""What a check has found, and the words in which findings count and name rows."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Literal

from posttrain.tasks.loading import Reading
from posttrain.types import Row

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
EXAMPLES = 3
"""How many places a finding names."""


@dataclass(frozen=True)
class Finding:
    """`error`: numbers from this task cannot be trusted; `warning`: look at it; `note`: good to know."""

    level: Level
    place: str
    message: str
    remedy: str = ""


def places(reading: Reading, rows: Sequence[Row]) -> str:
    """Where the first of these rows stand."""
    return some([reading.places.get(row.id, row.id) for row in rows])


def count(items: Sized, noun: str = "row") -> str:
    return f"{len(items):,} {noun}{'s' * (len(items) != 1)}"


def some(items: Sequence[str]) -> str:
    return ", ".join(items[:EXAMPLES]) + (" ..." if len(items) > EXAMPLES else "")
