"""Conversations as people store them, into `Message`s: OpenAI's format, and the near relatives of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from posttrain.graders.json import read_object
from posttrain.types import Message, Role, UserError

ROLES = {"developer": "system", "human": "user", "ai": "assistant", "model": "assistant"}
"""What others call the four roles."""
CALL = '{"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}'
KNOWN = {"role", "type", "content", "weight", "tool_calls", "tool_call_id"}


def messages(value: Any, place: str) -> tuple[Message, ...]:
    """The conversation in `value`.  Raises UserError for anything in it that would be lost."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(
            "messages is not a list of messages", place=place, remedy='write [{"role": "user", "content": ...}, ...]'
        )
    return tuple(_message(item, f"message {number}", place) for number, item in enumerate(value, 1))


def _message(item: Any, which: str, place: str) -> Message:
    if not isinstance(item, Mapping):
        raise UserError(f"{which} is not an object", place=place, remedy="give it a role and content")
    given = str(item.get("role") or item.get("type") or "")
    role = ROLES.get(given, given)
    known = {*KNOWN, "name"} if role == "tool" else KNOWN  # the tool's name is that of the call it answers
    unknown = sorted(key for key, value in item.items() if key not in known and value not in (None, [], {}, ""))
    if unknown:
        remedy = "remove it, or write it into the content"
        raise UserError(f"{which} has {unknown[0]!r}, which is not understood", place=place, remedy=remedy)
    if role not in get_args(Role):
        raise UserError(f"{which} has the role {given!r}", place=place, remedy=f"use {', '.join(get_args(Role))}")
    weight = 1.0 if item.get("weight") is None else item["weight"]
    if weight not in (0, 1) or (weight == 0 and role != "assistant"):
        raise UserError(
            f"{which} has the weight {weight!r}",
            place=place,
            remedy="a weight is 0 or 1, and stands on assistant messages",
        )
    calls = _calls(item.get("tool_calls") or [], which, place)
    content = _text(item.get("content"), which, place)
    if not content.strip() and not calls and role != "tool":
        raise UserError(f"{which} is empty", place=place, remedy="give it content")
    return Message(role, content, float(weight), calls, str(item.get("tool_call_id") or ""))  # type: ignore[arg-type]


def _calls(calls: Any, which: str, place: str) -> tuple[Mapping[str, Any], ...]:
    """Tool calls, each with a name and arguments that are, or are the text of, an object."""
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UserError(f"a tool call of {which} has no function name", place=place, remedy=f"write {CALL}")
        arguments = function.get("arguments") or {}
        if not isinstance(read_object(arguments) if isinstance(arguments, str) else arguments, Mapping):
            raise UserError(
                f"the arguments of a tool call of {which} are not a JSON object", place=place, remedy=f"write {CALL}"
            )
    return tuple(calls)


def _text(content: Any, which: str, place: str) -> str:
    """Content is a text, nothing, or a list of parts of which we know the textual."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text") or "") for part in content)
    raise UserError(f"the content of {which} is not text", place=place, remedy="only text can be learnt here")
