"""Evaluate: play every row of a split once, as the candidate is served, and keep the record."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.evaluation.record import Evaluation
from posttrain.rollouts import play
from posttrain.runs import Run
from posttrain.types import Candidate, Rollout, Row, Score, Task, UserError

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
        rollouts += [group[0] for group in await play(candidate, batch, task)]
    if all(rollout.error.startswith("grader:") for rollout in rollouts):
        raise UserError(
            f"the grader fails on every {split} row: {rollouts[0].error.removeprefix('grader: ')}",
            place=str(task.folder or task.name),
            remedy=f"mend the grader; posttrain check {task.folder or task.name} says on which rows it fails",
        )
    return Evaluation.from_rollouts(candidate.name, task, split, rollouts)


async def quick_score(candidate: Candidate, task: Task, rows: Sequence[Row]) -> tuple[float, float]:
    """(score, mean grade) on some rows: what searches compare, the second breaking ties of the first."""
    return score_and_grade([group[0].score for group in await play(candidate, rows, task)], task)


def scored_outcomes(scores: Sequence[Score | None], task: Task) -> list[float]:
    """What each row counts in the task's score; None, a failed rollout, counts as 0."""
    if task.scored_by == "grade":
        return [score.value if score else 0.0 for score in scores]
    return [float(bool(score and score.passed)) for score in scores]


def score_and_grade(scores: Sequence[Score | None], task: Task) -> tuple[float, float]:
    """What the task is scored by, and the mean grade; None, a failed rollout, counts as 0."""
    grade = sum(score.value for score in scores if score) / len(scores)
    return sum(scored_outcomes(scores, task)) / len(scores), grade
