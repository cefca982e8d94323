"""The rows there are to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.types import Row, Target, Task, UserError


def labelled(task: Task) -> Sequence[tuple[Row, Target]]:
    """The train rows that have a target, each with it.  Raises UserError when none has."""
    pairs = [(row, row.target) for row in task.rows("train") if row.target is not None]
    if not pairs:
        raise UserError("no train row has a target", place=f"task {task.name}", remedy="label some rows")
    return pairs
