"""What the floors share: an answer that costs no tokens, as a rollout; and arrays on disk without pickle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from posttrain.runs import disk_errors
from posttrain.types import Completion, OnText, Rollout, Row, UserError

Arrays = Mapping[str, NDArray]


@dataclass(frozen=True)
class Answer:
    """A text and, where it is known, the probability that it is right."""

    text: str
    confidence: float | None = None


def rollouts(
    rows: Sequence[Row], answer: Callable[[Sequence[Row]], Sequence[Answer]], n: int, on_text: OnText | None
) -> list[list[Rollout]]:
    """`n` equal rollouts per row: a floor has nothing to draw by lot."""
    started = time.monotonic()
    answers = answer(rows)
    seconds = (time.monotonic() - started) / max(1, len(rows))
    groups = []
    for index, (row, given) in enumerate(zip(rows, answers, strict=True)):
        completion = Completion(given.text, "stop", confidence=given.confidence, prompt=row.messages)
        groups.append([Rollout(row, row.messages, completion, seconds=seconds)] * n)
        if on_text is not None:
            for attempt in range(n):
                on_text(index, attempt, given.text)
    return groups


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz file whole.  Raises UserError."""
    temporary = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            numpy.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)


def load_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of an .npz file.  Raises UserError when it is missing or holds anything but arrays."""
    try:
        with numpy.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"not readable as arrays: {error}", place=str(path), remedy="teach the candidate again"
        ) from error
