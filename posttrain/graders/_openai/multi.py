"""multi: a formula over the scores of other graders, each by its name."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from posttrain.graders._openai import Graded, Make, OpenAIGrader, required
from posttrain.graders._openai._formula import Formula
from posttrain.types import UserError


class Grader:
    """`graders` is an object, whose keys are the names, or a list, or one: then "<type>_score", and where a type comes
    twice the grader's own name, is what the formula calls it by."""

    def __init__(self, definition: Mapping[str, Any], make: Make) -> None:
        self.name, formula = required(definition, "name", "calculate_output")
        self.graders = _named(definition.get("graders"), make)
        self.formula = Formula(formula, [*self.graders])

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        found = await asyncio.gather(*(grader.grade(item, sample) for grader in self.graders.values()))
        errors = {name: error for graded in found for name, error in graded.errors.items()}
        parts = {name: graded.reward for name, graded in zip(self.graders, found, strict=True)}
        try:
            reward = self.formula.value(parts)
        except (ArithmeticError, ValueError):
            reward = math.nan
        if not math.isfinite(reward):
            return Graded(0.0, errors | {"formula_parse_error": True}, parts)
        return Graded(reward, errors, parts)


def _named(given: Any, make: Make) -> dict[str, OpenAIGrader]:
    if isinstance(given, Mapping) and "type" in given:
        given = [given]
    if isinstance(given, Mapping) and given:
        found = {str(name): make(each) for name, each in given.items()}
    elif isinstance(given, list) and given:
        kinds = [each.get("type") if isinstance(each, Mapping) else "" for each in given]
        found = {}
        for kind, each in zip(kinds, given, strict=True):
            grader = make(each)
            found[f"{kind}_score" if kinds.count(kind) == 1 else grader.name] = grader
    else:
        raise UserError("a multi grader without graders", place="grader.graders", remedy="give an object of graders")
    if len(found) < len(given):
        raise UserError("two graders of one name", place="grader.graders", remedy="give each a name of its own")
    return found
