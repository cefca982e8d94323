"""base: the model as it is, with the task's instructions and nothing else.  What all teaching is measured against."""

from __future__ import annotations

from dataclasses import replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.types import Kind, Task

KIND: Kind = "prompt"
LABEL = "instructions only"


async def teach(candidate: PolicyCandidate, task: Task, run: Run) -> PolicyCandidate:  # noqa: ARG001
    """The candidate with the task's instructions and the task's output form."""
    return replace(candidate, instructions=task.instructions, output=task.output)
