"""dapo: GRPO that may go further up than down, samples until a batch has signal, and does not learn from answers that
were cut off (arXiv:2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.techniques import grpo
from posttrain.techniques._groups import CutOff
from posttrain.techniques._work import Work
from posttrain.types import Kind, Task

KIND: Kind = "weights"
LABEL = "reinforcement learning (DAPO)"


@dataclass(frozen=True)
class Config(grpo.Config):
    """See grpo.Config."""

    clip_high: float = 0.28
    most_draws: int = 3
    cut_off: CutOff = "masked"


def work(task: Task, config: Config = Config()) -> Work:
    """See grpo.work."""
    return grpo.work(task, config)


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """See grpo.teach."""
    return await grpo.teach(candidate, task, run, config)
