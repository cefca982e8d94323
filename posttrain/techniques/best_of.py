"""best_of: sample several answers and take the majority (self-consistency, arXiv:2203.11171).

It shows what test-time compute buys without any teaching.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.types import Kind, Task

KIND: Kind = "prompt"
LABEL = "majority of several answers"


@dataclass(frozen=True)
class Config:
    votes: int = 5
    temperature: float = 0.7


def shape(candidate: PolicyCandidate, task: Task, config: Config = Config()) -> PolicyCandidate:  # noqa: ARG001
    """The same candidate, answering by majority vote."""
    return replace(candidate, votes=config.votes, votes_temperature=config.temperature)


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:  # noqa: ARG001
    """See `shape`."""
    return shape(candidate, task, config)
