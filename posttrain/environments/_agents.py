"""Agents whom the one that answers may ask in an episode, as it would call a tool; each answers in an episode of its
own, maybe with tools or agents that are its own, and remembers nothing of what it was asked before.

    [environment.agents.adder]
    description = "Adds two numbers."        # what the one that may ask it is told
    instructions = "Answer with the sum."    # what it is told itself
    max_tokens = 8                           # that its answer may have
    tools = ["calculator"]                   # and all other options of the environment tools, if it may call any
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain import environments, graders
from posttrain.tools.tool import Tool
from posttrain.types import (
    Candidate,
    Document,
    Environment,
    Message,
    Output,
    Rollout,
    RolloutError,
    Row,
    Task,
    UserError,
)

MAIN = "main"
"""The name of the agent that has the row, where agents are told apart; no other may have it."""

QUESTION = "question"
PARAMETERS = {"type": "object", "properties": {QUESTION: {"type": "string"}}, "required": [QUESTION]}

LONGEST_ANSWER = 64
"""Tokens, where an agent's table does not tell."""


@dataclass(frozen=True)
class Agent:
    """See the module."""

    description: str
    instructions: str
    output: Output
    environment: Environment | None = None

    @classmethod
    def of(cls, name: str, table: Any, folder: Path | None, documents: tuple[Document, ...]) -> Agent:
        """From its table in task.toml.  Raises UserError for one that cannot be."""
        place, options = f"[environment.agents.{name}]", dict(table) if isinstance(table, Mapping) else {}
        said = [options.pop(key, None) for key in ("description", "instructions")]
        tokens = options.pop("max_tokens", LONGEST_ANSWER)
        if name == MAIN or not name.isidentifier():
            raise UserError(f"an agent cannot be called {name!r}", place=place, remedy="give it a name of letters")
        if not all(isinstance(text, str) and text for text in said) or not isinstance(tokens, int) or tokens < 1:
            raise UserError(
                f"the agent {name} is not told whole",
                place=place,
                remedy='give description = "...", instructions = "...", and max_tokens, a number, if you like',
            )
        world = environments.load("tools", options, folder, documents) if options else None
        description, instructions = map(str, said)
        return cls(description, instructions, Output(max_tokens=tokens), world)

    def tool(self, name: str) -> Tool:
        """As it is offered."""
        return Tool(name, self.description, PARAMETERS)

    @property
    def agents(self) -> Mapping[str, Agent]:
        """By name, those whom this one may ask."""
        return agents_of(self.environment)

    def task(self, name: str, task: Task) -> Task:
        """To answer by itself what rows of `task` to learn from say that it was asked; they may say nothing of it.
        What is learnt is not judged by.  Raises UserError where they say that it said two things to one question."""
        told = {split: _rows(name, rows) for split, rows in task.splits.items() if split != "test"}
        learnt = {row.text for row in told.get("train", ())}
        told["dev"] = tuple(row for row in told.get("dev", ()) if row.text not in learnt)
        return replace(
            task,
            name=f"{task.name}/{name}",
            instructions=self.instructions,
            output=self.output,
            splits={split: rows for split, rows in told.items() if rows},
            grader=graders.load("exact", {}),
            environment=self.environment,
            scored_by="right",
            gold=None,
            ceiling=None,
        )


def agents_of(environment: Environment | None) -> Mapping[str, Agent]:
    """By name, those whom the one that answers may ask."""
    found: Mapping[str, Agent] = getattr(environment, "agents", {})
    return found


def candidate_for(name: str, candidate: Candidate) -> Candidate:
    """Who is this agent beside a candidate.  Raises RolloutError when nobody is."""
    found: Mapping[str, Candidate] = getattr(candidate, "agents", {})
    if name not in found:
        raise RolloutError("policy", f"{candidate.name} has nobody to be {name}")
    return found[name]


def by_agent(rollout: Rollout, name: str = MAIN) -> Iterator[tuple[str, Rollout]]:
    """An attempt and those of all agents that were asked in it, each with the name of its agent ("reader", or, where
    the reader was asked by a researcher, "researcher.reader")."""
    yield name, rollout
    for asked in rollout.asked:
        yield from by_agent(asked, inner_name(name, asked.agent))


def inner_name(outer: str, name: str) -> str:
    """The whole name of an agent whom `outer` may ask."""
    return name if outer == MAIN else f"{outer}.{name}"


def _rows(name: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """What the agent was asked in these rows, and said, each question once."""
    found: dict[str, Row] = {}
    for row in rows:
        for call in row.metadata.get("calls", ()):
            if call.get("name") == name and "said" in call:
                question = str(call.get("arguments", {}).get(QUESTION, ""))
                own = {"calls": call["calls"]} if "calls" in call else {}
                known = Row(f"{row.id}/{name}-{len(found) + 1}", (Message("user", question),), str(call["said"]))
                before = found.setdefault(question, replace(known, metadata=own, place=row.place))
                if before.target != known.target:
                    raise UserError(
                        f"{name} says {before.target!r} to {question!r}, and {known.target!r}",
                        place=row.place or f"row {row.id}",
                        remedy=f"{before.place or before.id} says the first: let both say the same",
                    )
    return tuple(found.values())
