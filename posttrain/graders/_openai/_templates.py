"""Texts with places for values: "{{item.answer}} or {{sample.output_text}}"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.types import UserError

PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
VARIABLE = re.compile(r"(?P<root>item|sample)(?P<path>(?:\.[^\s.\[\]{}]+|\[\d+\])*)")
STEP = re.compile(r"\.([^\s.\[\]{}]+)|\[(\d+)\]")


class NoValue(Exception):
    """There is nothing at a place: the row lacks the field, or the answer is no JSON."""

    @property
    def error(self) -> str:
        """What the API calls it: nobody's answer can mend a row."""
        return "sample_parse_error" if str(self).startswith("sample") else "invalid_variable_error"


class Template:
    """Raises UserError, naming `place`, for what is neither of `item` nor of `sample`."""

    def __init__(self, text: str, place: str) -> None:
        self.text = text
        self.variables: dict[str, tuple[str, list[str | int]]] = {}
        for inside in PLACE.findall(text):
            found = VARIABLE.fullmatch(inside.strip())
            if not found:
                raise UserError(
                    f"{{{{{inside}}}}} is no variable",
                    place=place,
                    remedy="write {{item.FIELD}}, of the row, or {{sample.output_text}}, the model's answer",
                )
            steps = [name or int(number) for name, number in STEP.findall(found["path"])]
            self.variables[inside] = found["root"], steps

    @property
    def roots(self) -> set[str]:
        """Which of `item` and `sample` it asks for."""
        return {root for root, _ in self.variables.values()}

    def fill(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
        """The text.  Raises NoValue."""
        given = {"item": item, "sample": sample}

        def value(match: re.Match[str]) -> str:
            root, steps = self.variables[match[1]]
            return written(_at(given[root], steps, match[1].strip()))

        return PLACE.sub(value, self.text)


def written(value: Any) -> str:
    """A value as a text: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _at(value: Any, steps: Sequence[str | int], name: str) -> Any:
    for step in steps:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and str(step).isdecimal():
            if int(step) >= len(value):
                raise NoValue(name)
            value = value[int(step)]
        else:
            raise NoValue(name)
    if value is None:
        raise NoValue(name)
    return value
