"""string_check: a text equals another, or holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.graders._openai import Graded, Make, one_of, required
from posttrain.graders._openai._templates import NoValue, Template

OPERATIONS: Mapping[str, Callable[[str, str], bool]] = {
    "eq": lambda given, reference: given == reference,
    "ne": lambda given, reference: given != reference,
    "like": lambda given, reference: reference in given,
    "ilike": lambda given, reference: reference.casefold() in given.casefold(),
}


class Grader:
    def __init__(self, definition: Mapping[str, Any], _: Make) -> None:
        self.name, given, reference = required(definition, "name", "input", "reference")
        self.given, self.reference = Template(given, "grader.input"), Template(reference, "grader.reference")
        self.holds = OPERATIONS[one_of(definition, "operation", [*OPERATIONS])]

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        try:
            return Graded(float(self.holds(self.given.fill(item, sample), self.reference.fill(item, sample))))
        except NoValue as nothing:
            return Graded(0.0, {nothing.error: True})
