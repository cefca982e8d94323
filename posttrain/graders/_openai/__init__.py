"""Graders as OpenAI's API describes them: one file per `type`, each with a class `Grader`.

`Grader(definition, make)` is made of what the request says, with `make` for graders inside it, and raises UserError for
what is wrong with that; `grade(item, sample)` gives a `Graded`, whatever the model answered.  `item` is the row of the
data set, `sample` what was answered: {"output_text": ..., "output_json": ...}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from posttrain.discovery import find, names
from posttrain.types import UserError


@dataclass(frozen=True)
class Graded:
    """`errors` are those of the API's names that happened, each with True or a text; `parts` are by grader inside."""

    reward: float
    errors: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)


class OpenAIGrader(Protocol):
    name: str

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded: ...


Make = Callable[[Any], OpenAIGrader]


def make(definition: Any) -> OpenAIGrader:
    """The grader that a request describes.  Raises UserError naming the field at fault."""
    if not isinstance(definition, Mapping):
        raise UserError("a grader is not an object", place="grader", remedy='give {"type": ..., "name": ...}')
    kind = definition.get("type")
    known = names("graders._openai")
    if kind not in known:
        raise UserError(
            f"no grader of the type {kind!r} here",
            place="grader.type",
            remedy=f"give one of {', '.join(known)}",
        )
    grader: OpenAIGrader = find("graders._openai", kind).Grader(definition, make)
    return grader


def required(definition: Mapping[str, Any], *fields: str) -> list[str]:
    """The texts of these fields.  Raises UserError for the first that is none."""
    found = []
    for name in fields:
        value = definition.get(name)
        if not isinstance(value, str):
            raise UserError(
                f"{name} of a {definition.get('type')} grader is "
                f"{'missing' if value is None else f'a {type(value).__name__}'}",
                place=f"grader.{name}",
                remedy="give a text",
            )
        found.append(value)
    return found


def one_of(definition: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """The value of a field that has only so many.  Raises UserError."""
    value = definition.get(name)
    if value not in choices:
        raise UserError(
            f"{name} of a {definition.get('type')} grader is {value!r}",
            place=f"grader.{name}",
            remedy=f"give one of {', '.join(choices)}",
        )
    return str(value)
