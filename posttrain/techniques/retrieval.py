"""retrieval: the documents that match a row best, put into its prompt (arXiv:2005.11401), by BM25."""

from __future__ import annotations

from dataclasses import dataclass, replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.types import Kind, Task, UserError

KIND: Kind = "prompt"
LABEL = "documents in the prompt"


@dataclass(frozen=True)
class Config:
    passages: int = 1


def shape(candidate: PolicyCandidate, task: Task, config: Config = Config()) -> PolicyCandidate:
    """The candidate, reading before it answers."""
    return replace(candidate, documents=task.documents, passages=min(config.passages, len(task.documents)))


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:  # noqa: ARG001
    """See `shape`.  Raises UserError when the task has no documents."""
    if not task.documents:
        raise UserError(
            "this task has no documents to retrieve from",
            place=task.name,
            remedy='add a folder of texts and documents = "documents" to task.toml, or leave retrieval out',
        )
    return shape(candidate, task, config)
