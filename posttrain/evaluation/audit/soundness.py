"""Whether a grader gives the wanted answers their due, and the same answer the same reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.evaluation.audit.grading import Graded, graded
from posttrain.types import Row, Task, target_text

AGAIN_ROWS, TIMES = 8, 4
"""Rows whose wanted answer is graded anew, so many times and in the other order."""

GOLD_AT_LEAST = 0.99


@dataclass(frozen=True)
class Fault:
    """`kind` is a word; `told` a sentence; `rows` those that show it."""

    kind: str
    told: str
    rows: tuple[str, ...] = ()


async def faults(task: Task, rows: Sequence[Row], golds: Mapping[str, Graded]) -> list[Fault]:
    """What is unsound, `golds` being what the wanted answers earned in the order of the rows."""
    found = []
    failed = [row_id for row_id, one in golds.items() if one.reason]
    if failed:
        reason = golds[failed[0]].reason
        found.append(Fault("fails", f"it fails on the wanted answer of {len(failed)} rows: {reason}", tuple(failed)))
    low = [row_id for row_id, one in golds.items() if not one.reason and one.reward < GOLD_AT_LEAST]
    if low:
        lowest = min(golds[row_id].reward for row_id in low)
        told = (
            f"the wanted answer earns less than {GOLD_AT_LEAST} on {len(low)} of {len(golds)} rows, {lowest:.2f} once"
        )
        found.append(Fault("gold", told, tuple(low)))
    differing = await _differing(task, rows, golds)
    if differing:
        told = f"the same answer is graded otherwise another time, or after others, on {len(differing)} rows"
        found.append(Fault("unsteady", told, tuple(differing)))
    return found


async def _differing(task: Task, rows: Sequence[Row], golds: Mapping[str, Graded]) -> list[str]:
    """The rows whose wanted answer does not earn the same again, in the other order."""
    wanted = [row for row in rows if row.target is not None and not golds[row.id].reason][:AGAIN_ROWS]
    found = dict.fromkeys([row.id for row in wanted], False)
    for _ in range(TIMES):
        for row in reversed(wanted):
            again = await graded(task.grader, row, target_text(row.target) if row.target is not None else "")
            found[row.id] |= again.reason != "" or abs(again.reward - golds[row.id].reward) > 1e-9
    return [row_id for row_id, differs in found.items() if differs]
