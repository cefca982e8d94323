"""tools: before it answers, the candidate may call tools, one a turn, and is told what they say.

    [environment]                            # task.toml
    name = "tools"
    tools = ["calculator", "search"]         # those that are built in: posttrain/tools/builtin
    file = "tools.py"                        # every public function of a file of the task's own is a tool
    form = "json"                            # how they are offered and called: json, mcp or python
    turns = 6                                # of which the last is the answer
    seconds = 30                             # that a tool may take

    [environment.servers.weather]            # MCP servers
    command = ["python", "weather.py"]       # or url = "http://127.0.0.1:8000/mcp"

    [environment.agents.adder]               # another policy, asked as a tool is called: _agents.py
    description = "Adds two numbers."
    instructions = "Answer with the sum."

An answer that is no call is the last, and the task's grader judges it.  A file may also define `reset(row)`, which an
episode begins with, and `reward(row, answer)`, which then judges instead: both see what the calls have changed, for the
functions of an episode run in a process of its own.  A tool that raises tells the candidate why; one that does not
answer, or whose server dies, ends that episode alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posttrain.environments._agents import QUESTION, Agent, candidate_for
from posttrain.environments._recording import recorded, spoken, told
from posttrain.environments._together import together
from posttrain.environments._toolbox import Open, Toolbox
from posttrain.tools import ToolFailed
from posttrain.tools.forms import FORMS, Malformed, offered, read, written
from posttrain.tools.functions import text_of
from posttrain.types import Candidate, Document, Message, Rollout, RolloutError, Row, Sampling, Score, Turn, UserError

FAILED = "error: "
"""What a candidate is told begins with this when its call came to nothing."""


class Environment:
    """Options: see the module."""

    free_text = True
    """Answers are constrained to no form: a call would have none of it."""

    def __init__(
        self,
        *,
        tools: list[str] | None = None,
        file: str = "",
        servers: dict[str, Any] | None = None,
        agents: dict[str, Any] | None = None,
        form: str = "json",
        turns: int = 6,
        seconds: float = 30.0,
        folder: Path | None = None,
        documents: tuple[Document, ...] = (),
    ) -> None:
        if form not in FORMS:
            raise ValueError(f'form = "{form}": give one of {", ".join(FORMS)}')
        if turns < 2 or not seconds > 0:
            raise ValueError(f"turns = {turns}, seconds = {seconds:g}: give two turns at least, and some time")
        self.form, self.turns, self.seconds = form, turns, seconds
        self.agents = {name: Agent.of(name, table, folder, documents) for name, table in (agents or {}).items()}
        asked = tuple(agent.tool(name) for name, agent in self.agents.items())
        self.toolbox = Toolbox(tuple(tools or ()), file, dict(servers or {}), seconds, folder, documents, asked)
        self.source = self.toolbox.source + "".join(
            getattr(agent.environment, "source", "") for agent in self.agents.values()
        )
        self.graded = not self.toolbox.rewards

    def in_form(self, form: str) -> Environment:
        """The same with its tools offered in another form."""
        other = copy.copy(self)
        other.form = form
        return other

    async def attempt(
        self, candidate: Candidate, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Rollout]]:
        """`n` episodes of each row, all at the same time."""
        async with self._opened() as world:
            return await together(lambda row, own: Episode(world, candidate, row, own).played(), rows, n, sampling)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[World]:
        async with AsyncExitStack() as stack:
            box = await stack.enter_async_context(self.toolbox.opened())
            inner = {}
            for name, agent in self.agents.items():
                if agent.environment is not None:
                    assert isinstance(agent.environment, Environment)
                    inner[name] = await stack.enter_async_context(agent.environment._opened())
            yield World(self, box, inner)

    async def worked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with the calls that their metadata names under `calls`, [{"name": ..., "arguments": {...}}], and
        what came of them; of an agent, what it `said`."""
        async with self.toolbox.opened() as box:
            return [await self._worked(row, box) for row in rows]

    async def _worked(self, row: Row, box: Open) -> Row:
        said_before: list[Message] = []
        async with AsyncExitStack() as stack:
            session = await box.session(row, stack)
            for named in row.metadata.get("calls", ()):
                call = box.call_of(named, self.form)
                if call.name in self.agents and "said" not in named:
                    message, remedy = f"calls: what {call.name} said is missing", 'write it under "said"'
                    raise UserError(message, place=row.place or f"row {row.id}", remedy=remedy)
                try:
                    agent = call.name in self.agents
                    said = str(named["said"]) if agent else text_of(await session.call(call.name, call.arguments))
                except ToolFailed as error:
                    remedy = "name calls that a good answer makes"
                    message = f"calls: {call.name} fails: {error}"
                    raise UserError(message, place=row.place or f"row {row.id}", remedy=remedy) from error
                said_before += [Message("assistant", written(call, self.form)), Message("tool", said)]
        return replace(row, worked=tuple(said_before), tools=offered(box.tools, self.form))


@dataclass(frozen=True)
class World:
    """An environment whose tools are ready to be called, and those of agents that have some."""

    environment: Environment
    box: Open
    inner: Mapping[str, World]


@dataclass
class Episode:
    """One row, one candidate, and the tools."""

    world: World
    candidate: Candidate
    row: Row
    sampling: Sampling | None
    turns: list[Turn] = field(default_factory=list)
    asked: list[Rollout] = field(default_factory=list)

    async def played(self) -> Rollout:
        """To its end; what fails is told on the rollout, with the turns there were."""
        started = time.monotonic()
        score: Score | None = None
        error = ""
        try:
            async with AsyncExitStack() as stack:
                session = await self.world.box.session(self.row, stack)
                answer = await self._answer(session)
                if self.world.environment.toolbox.rewards:
                    value = await session.reward(told(self.row), answer)
                    score = Score(value, value >= 1)
        except RolloutError as failure:
            error = str(failure)
        rollout = recorded(self.row, self.turns, score, error, time.monotonic() - started)
        return replace(rollout, asked=tuple(self.asked))

    async def _answer(self, session: Any) -> str:
        """The first answer that is no call, or the last that is allowed."""
        messages = self.row.messages
        tools = offered(self.world.box.tools, self.world.environment.form)
        for _ in range(self.world.environment.turns):
            asked = replace(self.row, messages=messages, tools=tools)
            [[said]] = await self.candidate.attempt([asked], n=1, sampling=self.sampling)
            if said.error or said.completion is None:
                raise RolloutError(*(said.error or "policy: it said nothing").split(": ", 1))
            self.turns.append(Turn(said.messages, said.completion))
            result = await self._called(said.answer, session)
            if result is None:
                break
            messages = (*messages, spoken(said.completion), Message("tool", result))
        return self.turns[-1].completion.text

    async def _called(self, answer: str, session: Any) -> str | None:
        """What comes of an answer that is a call; None when it is none."""
        try:
            call = read(answer, self.world.box.tools, self.world.environment.form)
            if call is None:
                return None
            if agent := self.world.environment.agents.get(call.name):
                return await self._said_by(agent, call.name, call.arguments[QUESTION])
            return text_of(await session.call(call.name, call.arguments))
        except (Malformed, ToolFailed) as error:
            return f"{FAILED}{error}"

    async def _said_by(self, agent: Agent, name: str, question: str) -> str:
        """What an agent says to a question.  Raises ToolFailed when it cannot."""
        number = len(self.asked) + 1
        row = Row(f"{self.row.id}/{name}-{number}", (Message("user", question),))
        longest, sampling = agent.output.max_tokens, self.sampling
        own = sampling and replace(sampling, max_tokens=longest, seed=sampling.seed * 1009 + number)
        candidate = candidate_for(name, self.candidate)
        if world := self.world.inner.get(name):
            rollout = await Episode(world, candidate, row, own).played()
        else:
            [[rollout]] = await candidate.attempt([row], n=1, sampling=own)
        self.asked.append(replace(rollout, agent=name))
        if rollout.error:
            raise ToolFailed(rollout.error)
        return rollout.answer
