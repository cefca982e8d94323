"""Chains: `retrieval+sft` teaches with retrieval first, then fine-tunes what came of it."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from types import ModuleType
from typing import Any

from posttrain.discovery import find
from posttrain.runs import Budget, Run
from posttrain.techniques._work import Work
from posttrain.types import Candidate, Kind, Task


def links(expression: str) -> list[ModuleType]:
    """The techniques of a chain, in order.  Raises UserError for an unknown name."""
    return [find("techniques", name.strip()) for name in expression.split("+")]


def kind(expression: str) -> Kind:
    """What kind of candidate a chain makes."""
    kinds = [module.KIND for module in links(expression)]
    return "weights" if "weights" in kinds else kinds[-1]


def label(expression: str) -> str:
    """A chain in plain words."""
    return ", then ".join(module.LABEL for module in links(expression))


def work(expression: str, task: Task) -> Work:
    """How much a chain will do."""
    parts = [module.work(task) for module in links(expression) if hasattr(module, "work")]
    return Work(sum(part.rows_answered for part in parts), sum(part.rows_trained for part in parts))


async def teach(expression: str, candidate: Candidate, task: Task, run: Run, *, last: Any = None) -> Candidate:
    """Teaches with every technique in turn, each in a folder of its own; what time there is, the slow ones share.

    `last` is a Config for the last technique of the chain.
    """
    modules = links(expression)
    for i, module in enumerate(modules):
        slow = sum(hasattr(later, "work") for later in modules[i:])
        left = run.seconds_left
        minutes = None if left is None or not hasattr(module, "work") else left / slow / 60
        link = run.child(module.__name__.rpartition(".")[2], budget=Budget(minutes=minutes))
        settings = () if last is None or i + 1 < len(modules) else (last,)
        candidate = await module.teach(candidate, task, link, *settings)
    return replace(candidate, name=expression) if is_dataclass(candidate) else candidate
