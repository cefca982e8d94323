"""The tools of a task, wherever they run: built in, functions of a file of the task's own, MCP servers; and agents,
which are offered as tools are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.discovery import find
from posttrain.environments._recording import told
from posttrain.environments._worlds import World, Worlds
from posttrain.tools import mcp
from posttrain.tools.forms import Malformed, read, written
from posttrain.tools.functions import loaded, tool_of, tools_of
from posttrain.tools.tool import Call, Tool
from posttrain.types import Document, Message, RolloutError, Row, UserError


@dataclass
class Toolbox:
    """What tools there are.  Raises UserError for those that cannot be."""

    built_in: tuple[str, ...]
    file: str
    servers: Mapping[str, Any]
    seconds: float
    folder: Path | None
    documents: tuple[Document, ...] = ()
    agents: tuple[Tool, ...] = ()
    source: str = field(default="", init=False)
    rewards: bool = field(default=False, init=False)
    """Whether the file judges answers."""

    def __post_init__(self) -> None:
        nobody = Row("", (Message("user", ""),))
        self._makers = {name: find("tools.builtin", name).make for name in self.built_in}
        self._built_in = tuple(tool_of(make(nobody, self.documents)) for make in self._makers.values())
        self._own: tuple[Tool, ...] = ()
        if self.file:
            self.path = _beside(self.folder, self.file)
            self.source = self.path.read_text(encoding="utf-8")
            module = loaded(self.path)
            self._own = tools_of(module, self.path)
            self.rewards = callable(getattr(module, "reward", None))
        if not (self._built_in or self._own or self._new_servers() or self.agents):
            raise ValueError('no tools: give tools = ["calculator"], file = "tools.py", servers or agents')
        names = [tool.name for tool in (*self._built_in, *self._own, *self.agents)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two tools are called {twice}")

    def _new_servers(self) -> list[mcp.Server]:
        return [
            mcp.Server(name, settings, self.folder or Path(), self.seconds) for name, settings in self.servers.items()
        ]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Open]:
        """The tools, ready to be called.  Raises UserError when the file cannot be loaded or a server not started."""
        async with AsyncExitStack() as stack:
            worlds = await stack.enter_async_context(Worlds(self.path, "")) if self.file else None
            servers = [await stack.enter_async_context(server) for server in self._new_servers()]
            offered = mcp.named(servers)
            tools = {tool.name: tool for tool in (*self._built_in, *self._own, *self.agents)}
            for name, (server, own) in offered.items():
                if name in tools:
                    raise UserError(f"two tools are called {name}", place=str(self.folder), remedy="leave one out")
                tool = next(tool for tool in server.tools if tool.name == own)
                tools[name] = Tool(name, tool.description, tool.parameters)
            yield Open(self, tuple(tools.values()), worlds, offered)

    def made(self, row: Row) -> dict[str, Any]:
        """The functions that are built in, for a row."""
        return {
            tool.name: make(row, self.documents)
            for tool, make in zip(self._built_in, self._makers.values(), strict=True)
        }


@dataclass(frozen=True)
class Open:
    """The tools, ready to be called."""

    toolbox: Toolbox
    tools: Sequence[Tool]
    worlds: Worlds | None
    servers: Mapping[str, tuple[mcp.Server, str]]

    async def session(self, row: Row, stack: AsyncExitStack) -> Session:
        """The tools of one episode; what it opens is closed with `stack`."""
        world = None
        if self.worlds is not None:
            world = await stack.enter_async_context(World(self.worlds, self.toolbox.seconds))
            await world.reset(told(row))
        return Session(self, self.toolbox.made(row), world)

    def call_of(self, call: Mapping[str, Any], form: str) -> Call:
        """A call that a row names.  Raises UserError for one that could not be read if a candidate wrote it."""
        try:
            found = Call(str(call["name"]), dict(call.get("arguments", {})))
            read(written(found, form), self.tools, form)
        except (Malformed, KeyError, TypeError, ValueError) as error:
            remedy = 'write [{"name": ..., "arguments": {...}}] under metadata'
            raise UserError(f"calls: {call!r} cannot be made: {error}", remedy=remedy) from error
        return found


@dataclass(frozen=True)
class Session:
    """The tools of one episode."""

    open: Open
    built_in: Mapping[str, Any]
    world: World | None

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What a tool gives.  Raises ToolFailed when it cannot do what it was asked, and RolloutError when it does not
        answer."""
        if name in self.built_in:
            try:
                called = asyncio.to_thread(self.built_in[name], **arguments)
                return await asyncio.wait_for(called, self.open.toolbox.seconds)
            except TimeoutError as error:
                raise RolloutError("tool", f"{name} took more than {self.open.toolbox.seconds:g} seconds") from error
        if name in self.open.servers:
            server, own = self.open.servers[name]
            return await server.call(own, arguments)
        if self.world is None:
            raise RolloutError("tool", f"there is no tool {name}")
        return await self.world.call(name, arguments)

    async def reward(self, row: Mapping[str, Any], answer: str) -> float:
        """What the task's own file says that an answer is worth."""
        assert self.world is not None
        value = await self.world.reward(row, answer)
        if not 0 <= value <= 1:  # NaN is not, either
            raise RolloutError("environment", f"a reward of {value:g}, which is not between 0 and 1")
        return value


def _beside(folder: Path | None, file: str) -> Path:
    path = (folder or Path()) / file
    if not path.is_file():
        raise UserError(f"no {file} with tools", place=str(folder), remedy="write one: a function is a tool")
    return path.resolve()
