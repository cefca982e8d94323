"""Stored rollouts, graded again: what a repaired grader would have paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.evaluation.audit.grading import LONGEST_WAIT, graded
from posttrain.types import Row, Task, UserError

SAME = 1e-9
LOSERS = 5


@dataclass(frozen=True)
class Step:
    """The mean rewards of a step's rollouts, then and now, and how many would be paid less, and more."""

    step: int
    rollouts: int
    before: float
    after: float
    less: int
    more: int


@dataclass(frozen=True)
class Rescoring:
    """`losers` are the answers that would be paid less, the commonest first, each with how often it came, what it was
    paid then and would be now, and a row that it answered; `failed` rollouts the grader cannot judge now."""

    steps: tuple[Step, ...]
    losers: tuple[tuple[str, int, float, float, str], ...]
    failed: int

    @property
    def rollouts(self) -> int:
        return sum(step.rollouts for step in self.steps)

    def mean(self, name: str) -> float:
        """Of `before` or `after`, over all rollouts."""
        return sum(getattr(step, name) * step.rollouts for step in self.steps) / max(1, self.rollouts)


async def rescored(task: Task, records: Sequence[Mapping[str, Any]]) -> Rescoring:
    """The records of rollouts/*.jsonl by the task's grader as it is now; those that failed then are left out.

    Raises UserError when they are none of this task's, or of episodes, which a world scores.
    """
    rows = {row.id: row for split in task.splits.values() for row in split}
    judged = [record for record in records if record["reward"] is not None]
    if any(record.get("turns") for record in judged):
        raise UserError("episodes are scored by their world, not by a grader", place=task.name, remedy="train anew")
    if not judged or any(record["row"] not in rows for record in judged):
        raise UserError(
            "these rollouts are not of this task's rows", place=task.name, remedy="give the task that was trained on"
        )
    found: dict[int, list[tuple[float, float]]] = {}
    lost: Counter[str] = Counter()
    example: dict[str, tuple[float, float, str]] = {}
    failed = 0
    for record in judged:
        row: Row = rows[record["row"]]
        now = await graded(task.grader, row, record["completion"], LONGEST_WAIT)
        if now.reason:
            failed += 1
            continue
        before = float(record["reward"])
        found.setdefault(record["step"], []).append((before, now.reward))
        if now.reward < before - SAME:
            lost[record["completion"]] += 1
            example.setdefault(record["completion"], (before, now.reward, row.id))
    steps = [_step(number, pairs) for number, pairs in sorted(found.items())]
    losers = [(text, count, *example[text]) for text, count in lost.most_common(LOSERS)]
    return Rescoring(tuple(steps), tuple(losers), failed)


def _step(number: int, pairs: Sequence[tuple[float, float]]) -> Step:
    count = len(pairs)
    less = sum(after < before - SAME for before, after in pairs)
    more = sum(after > before + SAME for before, after in pairs)
    return Step(number, count, sum(b for b, _ in pairs) / count, sum(a for _, a in pairs) / count, less, more)
