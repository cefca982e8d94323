"""python: a function `grade(sample, item) -> float` of somebody's, run in the sandbox and nowhere else."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any

from posttrain import sandbox
from posttrain.graders._openai import Graded, Make, required
from posttrain.graders.code import POOL
from posttrain.sandbox.calling import CallFailed, Function
from posttrain.types import UserError

LARGEST = 256 * 1024
"""Bytes of source."""

LIMITS = sandbox.Limits(seconds=120, memory_bytes=2 * 2**30)

CALLED = """


def _called(text):
    import json
    given = json.loads(text)
    return float(grade(given["sample"], given["item"]))
"""


class Grader:
    def __init__(self, definition: Mapping[str, Any], _: Make) -> None:
        self.name, self.source = required(definition, "name", "source")
        place = "grader.source"
        if len(self.source.encode()) > LARGEST:
            raise UserError("the source is larger than 256 kB", place=place, remedy="shorten it")
        try:
            compile(self.source, "grader", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            raise UserError(f"the source is no Python: {error}", place=f"{place}{line}", remedy="correct it") from error
        if "grade" not in self.source:
            raise UserError("no function grade(sample, item)", place=place, remedy="define it")
        sandbox.isolation.bubblewrap()  # refuses where there is none
        self.function = Function(self.source + CALLED, "_called", LIMITS)

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        told = json.dumps({"sample": sample, "item": item})
        try:
            reward = await asyncio.get_running_loop().run_in_executor(POOL, self.function, told)
        except CallFailed as error:
            return _failed(str(error))
        return Graded(reward) if math.isfinite(reward) else _failed(f"it returned {reward}")


def _failed(why: str) -> Graded:
    return Graded(0.0, {"python_grader_runtime_error": True, "python_grader_runtime_error_details": why})
