"""Teaching agents one by one: whoever is asked in an episode is taught by itself, from what rows say that it was asked
and said.  (Reinforcement learning teaches all of them in the episodes that they share.)"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from posttrain.candidates.policy import AGENTS, PolicyCandidate
from posttrain.environments._agents import MAIN, agents_of, inner_name
from posttrain.runs import Budget, Run
from posttrain.types import Candidate, LearntNothing, Task

Teach = Callable[[PolicyCandidate, Task, Run], Awaitable[Candidate]]


def tasks(task: Task, name: str = MAIN) -> dict[str, Task]:
    """What there is to be taught, by agent: the task itself to the main one, and to each other one what it is asked,
    where rows to learn from tell of it."""
    found = {name: task}
    for inner, agent in agents_of(task.environment).items():
        own = agent.task(inner, task)
        if own.splits.get("train"):
            found |= tasks(own, inner_name(name, inner))
    return found


async def teach(candidate: PolicyCandidate, task: Task, run: Run, teach_one: Teach) -> PolicyCandidate:
    """The candidate, every agent of it taught for an equal share of the time, in a folder of its own: those who are
    asked before those who ask, who are judged by what they are told.

    When somebody asks to stop, those who were not taught by then stay as they were; so does who learnt nothing, and a
    detail says so.  Raises LearntNothing when nobody learnt anything.
    """
    learnt: dict[str, PolicyCandidate] = {}
    nothing: dict[str, LearntNothing] = {}
    try:
        for left, (name, own) in reversed([*enumerate(tasks(task).items(), 1)]):
            if run.stop.asked and learnt:
                break
            try:
                learnt[name] = await _taught(candidate.with_team(learnt).team()[name], own, run, name, left, teach_one)
            except LearntNothing as error:
                nothing[name] = error
        if not learnt:
            raise next(iter(nothing.values()))
    except BaseException:
        for member in learnt.values():
            member.policy.drop()
        raise
    return _whole(candidate.with_team(learnt), learnt, nothing)


async def _taught(
    candidate: PolicyCandidate, task: Task, run: Run, name: str, left: int, teach_one: Teach
) -> PolicyCandidate:
    """One of them, for its share of the time, which so many are left to share."""
    started, seconds = time.monotonic(), run.seconds_left
    budget = None if seconds is None else Budget(minutes=seconds / left / 60)
    child = run.child("" if name == MAIN else f"{AGENTS}/{name}", budget=budget)
    taught = await teach_one(candidate, task, child)
    run.started -= max(0.0, child.seconds - (time.monotonic() - started))  # it may have gone on from a checkpoint
    assert isinstance(taught, PolicyCandidate)
    return taught


def _whole(
    team: PolicyCandidate, learnt: dict[str, PolicyCandidate], nothing: dict[str, LearntNothing]
) -> PolicyCandidate:
    """The team with the details of its main agent, and of all their trainings."""
    trainings = [member.details["training"] for member in learnt.values()]  # the main agent's is the last
    tokens = sum(int(training["trained_tokens"]) for training in trainings)
    details = {**team.details, "training": {**trainings[-1], "trained_tokens": tokens}}
    details |= {f"{name} stays as it was": error.message for name, error in nothing.items()}
    return replace(team, details=details)
