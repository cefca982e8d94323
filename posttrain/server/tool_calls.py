"""Tools in the chat dialect: those a request brings, and replies that are calls of them.

A policy is shown tools in its prompt and calls one by writing what it was taught to: {"name": ..., "arguments": {...}}
alone, one such object a line, or {"tool_calls": [...]}.  A reply of any other form is text.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from posttrain.graders.json import read_object, schema_problem, validator

Tools = Sequence[Mapping[str, Any]]
Call = dict[str, Any]


class _AsSent(BaseModel):
    """Checked, and kept as it was sent: the order of its keys is part of the prompt."""

    model_config = ConfigDict(extra="forbid")
    _sent: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        made = check(value)
        made._sent = value
        return made

    @property
    def sent(self) -> dict[str, Any]:
        return self._sent


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    if problem := schema_problem(schema):
        raise ValueError(f"not a JSON schema: {problem}")
    return schema


def _arguments(text: str) -> str:
    if text.strip() and read_object(text) is None:
        raise ValueError("not the text of a JSON object")
    return text


class Function(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_schema)] | None = None
    strict: bool | None = None


class Tool(_AsSent):
    """A tool of a request."""

    type: Literal["function"]
    function: Function


class CalledFunction(BaseModel):
    model_config = ConfigDict(extra="ignore")  # openai's client adds parsed_arguments
    name: str = Field(min_length=1)
    arguments: Annotated[str, AfterValidator(_arguments)]


class ToolCall(_AsSent):
    """A call in a message of a conversation."""

    model_config = ConfigDict(extra="ignore")  # a call put together from a stream has its index
    id: str
    type: Literal["function"]
    function: CalledFunction


def may_be_a_call(text: str) -> bool:
    """Whether a reply that begins with `text` can still turn out to be a call."""
    return text.lstrip()[:1] in ("", "{", "`")


def read_calls(text: str, tools: Tools) -> list[Call]:
    """The calls that a reply is, in the dialect's form; none when it is text.

    Only tools that were shown can be called; the arguments of a `strict` one follow its schema.
    """
    shown = {str(function.get("name")): function for function in (tool.get("function", tool) for tool in tools)}
    calls = [_call(written, shown) for written in _objects(text)]
    return [call for call in calls if call] if all(calls) else []


def _objects(text: str) -> list[Any]:
    whole = read_object(text)
    if whole is None:
        return [read_object(line) for line in text.splitlines() if line.strip()]
    several = whole.get("tool_calls")
    return several if whole.keys() == {"tool_calls"} and isinstance(several, list) else [whole]


def _call(written: Any, shown: Mapping[str, Mapping[str, Any]]) -> Call | None:
    if not isinstance(written, dict) or written.keys() != {"name", "arguments"}:
        return None
    name, arguments = written["name"], written["arguments"]
    if not isinstance(name, str) or name not in shown or not isinstance(arguments, dict):
        return None
    function = shown[name]
    if function.get("strict") and not validator(function.get("parameters") or {}).is_valid(arguments):
        return None
    return {
        "id": f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }
