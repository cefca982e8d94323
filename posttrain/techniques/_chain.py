"""Chains: `retrieval+sft` teaches with retrieval first, then fine-tunes what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.candidates.policy import PolicyCandidate
from posttrain.discovery import find
from posttrain.runs import Budget, Run, disk_errors
from posttrain.techniques import _each_agent, _sweep
from posttrain.techniques._adapter import shape_is_settled
from posttrain.techniques._checkpoint import checkpoints
from posttrain.techniques._work import Work
from posttrain.types import Candidate, Kind, LearntNothing, Task, UserError


class NothingFurther(LearntNothing):
    """A later technique of a chain learnt nothing: `kept` is what those before it had trained."""

    def __init__(self, error: LearntNothing, kept: Candidate) -> None:
        super().__init__(error.message, place=error.place, remedy=error.remedy)
        self.kept = kept


def links(expression: str) -> list[ModuleType]:
    """The techniques of a chain, in order.  Raises UserError for an unknown name, and for a floor in a longer chain."""
    names = _names(expression)
    modules = [find("techniques", name) for name in names]
    floors = [name for name, module in zip(names, modules, strict=True) if module.KIND == "floor"]
    if floors and len(names) > 1:
        raise UserError(
            f"{expression} cannot be: {floors[0]} is a floor, which has no model to teach or to be taught with",
            place=expression,
            remedy=f"name {floors[0]} by itself; chain prompts and weights only, as in retrieval+sft",
        )
    return modules


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


def shape(expression: str, candidate: PolicyCandidate, task: Task) -> PolicyCandidate:
    """What can be said of a chain's candidate before anything is taught: how it will ask, and how often."""
    for module in links(expression):
        candidate = module.shape(candidate, task) if hasattr(module, "shape") else candidate
    return candidate


async def teach(expression: str, candidate: Candidate, task: Task, run: Run, *, last: Any = None) -> Candidate:
    """Teaches with every technique in turn, each in a folder of its own; what time there is, the slow ones share.
    When somebody asks to stop, what came of the techniques until then is the candidate, and named after them.

    `last` is a Config for the last technique of the chain, or several by name: a sweep.  A training that an earlier
    start of this run has left at a checkpoint goes on from there; all else begins anew, and its old log is removed.

    Raises UserError; NothingFurther when a technique learnt nothing after others had trained weights.
    """
    modules, trained_tokens = links(expression), 0
    _refuse_second_shape(modules, candidate, last)
    for i, (module, folder) in enumerate(zip(modules, folders(expression), strict=True)):
        if run.stop.asked and i:
            expression = _first(expression, i)
            break
        slow = sum(hasattr(later, "work") for later in modules[i:])
        left = run.seconds_left
        minutes = None if left is None or not hasattr(module, "work") else left / slow / 60
        if not checkpoints(run.folder / folder):
            _forget_logs(run.folder / folder)
        link = run.child(folder, budget=Budget(minutes=minutes))
        own = last if i + 1 == len(modules) else None
        try:
            candidate = await _teach(module, candidate, task, link, own)
        except LearntNothing as error:
            if isinstance(candidate, PolicyCandidate) and candidate.kind == "weights" and i:
                raise NothingFurther(error, replace(candidate, name=_first(expression, i))) from error
            raise
        if module.KIND == "weights" and isinstance(candidate, PolicyCandidate):
            training = candidate.details["training"]
            trained_tokens += training["trained_tokens"]
            summed = {**training, "trained_tokens": trained_tokens}
            candidate = replace(candidate, details={**candidate.details, "training": summed})
    return replace(candidate, name=expression) if is_dataclass(candidate) else candidate


async def _teach(module: ModuleType, candidate: Any, task: Task, run: Run, config: Any) -> Candidate:
    if getattr(module, "EACH_AGENT", False) and len(_each_agent.tasks(task)) > 1:
        return await _each_agent.teach(candidate, task, run, partial(_teach_one, module, config=config))
    return await _teach_one(module, candidate, task, run, config)


async def _teach_one(module: ModuleType, candidate: Any, task: Task, run: Run, config: Any) -> Candidate:
    if isinstance(config, Mapping):
        return await _sweep.teach(module, candidate, task, run, config)
    return await module.teach(candidate, task, run, *([] if config is None else [config]))


def _names(expression: str) -> list[str]:
    return [name.strip() for name in expression.split("+")]


def _first(expression: str, count: int) -> str:
    """The first links of a chain."""
    return "+".join(_names(expression)[:count])


def folders(expression: str) -> list[str]:
    """The folder of every link, beside each other: that of its technique, numbered where it comes again."""
    names = _names(expression)
    return [f"{name}-{number}" if (number := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]


def _forget_logs(folder: Path) -> None:
    """Removes the logs of an earlier start, which would else be appended to: every step would be there twice."""
    with disk_errors(folder):
        for log in (folder / "metrics.jsonl", *folder.glob("rollouts/*.jsonl")):
            log.unlink(missing_ok=True)


def _refuse_second_shape(modules: Sequence[ModuleType], start: Candidate, last: Any) -> None:
    """Refuses, before anything is trained, another shape for an adapter that a later link only goes on with."""
    if isinstance(last, Mapping):
        for each in last.values():
            _refuse_second_shape(modules, start, each)
    asked = getattr(last, "lora", None)
    earlier = [getattr(start, "kind", None), *(module.KIND for module in modules[:-1])]
    if asked is not None and asked != type(last)().lora and "weights" in earlier:
        raise shape_is_settled(modules[-1].__name__.rpartition(".")[2])
