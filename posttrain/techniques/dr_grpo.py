"""dr_grpo: GRPO without its two biases (arXiv:2503.20783): nothing is divided by a group's deviation or an answer's
length, which favour rows that are nearly always or never right, and wrong answers that are long."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.techniques import grpo
from posttrain.techniques._groups import Average
from posttrain.types import Kind, Task

KIND: Kind = "weights"
LABEL = "reinforcement learning (Dr. GRPO)"

work = grpo.work


@dataclass(frozen=True)
class Config(grpo.Config):
    """See grpo.Config."""

    scaled: bool = False
    average: Average = "constant"


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """See grpo.teach."""
    return await grpo.teach(candidate, task, run, config)
