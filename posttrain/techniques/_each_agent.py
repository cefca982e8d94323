"""Teaching agents one by one: whoever is asked in an episode is taught by itself, from what rows say that it was asked
and said.  (Reinforcement learning teaches all of them in the episodes that they share.)"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from posttrain.candidates.policy import AGENTS, PolicyCandidate
from posttrain.environments._agents import MAIN, agents_of, inner_name
from posttrain.runs import Budget, Run
from posttrain.types import Candidate, Task

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
    """The candidate, every agent of it taught for an equal share of the time, in a folder of its own."""
    wanted = tasks(task)
    team, trained_tokens = candidate.team(), 0
    learnt: dict[str, PolicyCandidate] = {}
    for i, (name, own) in enumerate(wanted.items()):
        left = run.seconds_left
        budget = None if left is None else Budget(minutes=left / (len(wanted) - i) / 60)
        child = run.child("" if name == MAIN else f"{AGENTS}/{name}", budget=budget)
        taught = await teach_one(team[name], own, child)
        assert isinstance(taught, PolicyCandidate)
        learnt[name] = taught
        trained_tokens += int(taught.details["training"]["trained_tokens"])
    whole = candidate.with_team(learnt)
    details = whole.details
    return replace(whole, details={**details, "training": {**details["training"], "trained_tokens": trained_tokens}})
