"""A grader as OpenAI's API describes it: string_check, text_similarity, python, or a formula over several.

The row's metadata is `item`, the answer is `sample.output_text`, and `sample.output_json` when it is JSON.  A reward
above 1 counts as 1, and one below 0 as 0.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.graders import _openai
from posttrain.graders._openai._templates import NoValue, Template
from posttrain.runs import read_json
from posttrain.types import RolloutError, Row, Score, UserError

PASSED = 0.999999

BROKEN = ("invalid_variable_error", "python_grader_runtime_error", "formula_parse_error")
"""Errors that are the grader's or the row's; all others are the answer's."""


class Grader:
    """Options: `file`, a JSON file in the task's folder with the grader's description; `threshold`, the reward at which
    an answer passes."""

    judges_without_target = True

    def __init__(self, *, file: str = "grader.json", threshold: float = 1.0, folder: Path | None = None) -> None:
        if folder is None:
            raise ValueError("an openai grader needs a task folder")
        definition = read_json(folder / file)
        self.source = json.dumps(definition, sort_keys=True)  # part of the task's hash
        self.threshold = threshold
        try:
            self.grader = _openai.make(definition)
        except UserError as error:
            raise UserError(error.message, place=f"{folder / file}: {error.place}", remedy=error.remedy) from error

    async def grade(self, row: Row, answer: str) -> Score:
        graded = await self.grader.grade(row.metadata, sample(answer))
        broken = [name for name in BROKEN if name in graded.errors]
        if broken:
            why = graded.errors.get("python_grader_runtime_error_details") or broken[0]
            raise RolloutError("grader", f"{why} (row {row.id})")
        value = min(1.0, max(0.0, graded.reward))
        parts = {name: min(1.0, max(0.0, part)) for name, part in graded.parts.items()}
        return Score(value, value >= min(self.threshold, PASSED), parts, ", ".join(graded.errors))


def sample(answer: str) -> dict[str, Any]:
    """What graders are told of an answer."""
    found: dict[str, Any] = {"output_text": answer, "output_tools": []}
    with contextlib.suppress(ValueError, RecursionError):
        found["output_json"] = json.loads(answer)
    return found


def reference(definition: Any, row: Row) -> str | None:
    """The text that a description compares answers with, where that is told by the row alone: what is wanted."""
    if not isinstance(definition, Mapping):
        return None
    if definition.get("type") == "multi":
        inside = definition.get("graders")
        each = [inside] if isinstance(inside, Mapping) and "type" in inside else inside
        values = each.values() if isinstance(each, Mapping) else each or ()
        return next((found for one in values if (found := reference(one, row)) is not None), None)
    text = definition.get("reference")
    if definition.get("operation") == "ne" or not isinstance(text, str):
        return None
    template = Template(text, "grader.reference")
    if template.roots != {"item"}:
        return None
    try:
        return template.fill(row.metadata, {})
    except NoValue:
        return None
