"""Evaluate: play every row of a split once, as the candidate is served, and keep the record."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.evaluation.record import Evaluation
from posttrain.rollouts import play
from posttrain.runs import Run
from posttrain.types import Candidate, Rollout, Row, Task, UserError

ROWS_AT_ONCE = 40
"""Rows handed to the candidate together; progress is shown between such batches."""


async def evaluate(candidate: Candidate, task: Task, split: str, run: Run) -> Evaluation:
    """The evaluation of `candidate` on all rows of a split.  Raises UserError when the task has no such rows
    or its grader judges none of them."""
    rows = task.rows(split)
    rollouts: list[Rollout] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        run.progress(f"{candidate.name}: {split} rows", start, len(rows))
        batch = rows[start : start + ROWS_AT_ONCE]
        rollouts += [group[0] for group in await play(candidate, batch, task.grader)]
    if all(rollout.error.startswith("grader:") for rollout in rollouts):
        raise UserError(
            f"the grader fails on every {split} row: {rollouts[0].error.removeprefix('grader: ')}",
            place=str(task.folder or task.name),
            remedy=f"mend the grader; posttrain check {task.folder or task.name} says on which rows it fails",
        )
    return Evaluation.from_rollouts(candidate.name, task, split, rollouts)


async def quick_score(candidate: Candidate, task: Task, rows: Sequence[Row]) -> tuple[float, float]:
    """(share right, mean value) on some rows: what searches compare, the second breaking ties of the first."""
    scores = [group[0].score for group in await play(candidate, rows, task.grader)]
    passed = sum(bool(score and score.passed) for score in scores)
    return passed / len(rows), sum(score.value for score in scores if score) / len(rows)
