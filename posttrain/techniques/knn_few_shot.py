"""knn_few_shot: for every row the most similar training rows as worked examples (arXiv:2101.06804), by BM25."""

from __future__ import annotations

from dataclasses import dataclass, replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.techniques.few_shot import demonstration
from posttrain.types import Kind, Task, UserError

KIND: Kind = "prompt"
LABEL = "nearest examples in the prompt"


@dataclass(frozen=True)
class Config:
    nearest: int = 4


def shape(candidate: PolicyCandidate, task: Task, config: Config = Config()) -> PolicyCandidate:
    """The candidate with all training rows to choose from."""
    pool = tuple(demonstration(row) for row in task.rows("train") if row.target is not None)
    return replace(candidate, demonstrations=pool, nearest=min(config.nearest, len(pool)))


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:  # noqa: ARG001
    """See `shape`.  Raises UserError when no training row has a target."""
    shown = shape(candidate, task, config)
    if not shown.demonstrations:
        raise UserError("no training row has a target", place=task.name, remedy="label some rows")
    return shown
