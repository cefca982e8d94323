"""python: a function `grade(sample, item) -> float` of somebody's, run in the sandbox and nowhere else."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from posttrain import sandbox
from posttrain.graders._openai import Graded, Make, required
from posttrain.graders.code import POOL
from posttrain.types import UserError

LARGEST = 256 * 1024
"""Bytes of source."""

LIMITS = sandbox.Limits(seconds=60, memory_bytes=2 * 2**30)

CALLED = """


def _called():
    import json, sys
    mark = {mark!r}
    given = json.loads(sys.stdin.read())
    value = grade(given["sample"], given["item"])
    sys.stdout.write("\\n" + mark + json.dumps(float(value)) + "\\n")


_called()
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

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        return await asyncio.get_running_loop().run_in_executor(POOL, self._run, item, sample)

    def _run(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        mark = secrets.token_hex(16)  # what the source prints itself is not taken for what it returns
        told = json.dumps({"sample": sample, "item": item})
        ended = sandbox.run(self.source + CALLED.format(mark=mark), told, limits=LIMITS)
        said = [line[len(mark) :] for line in ended.output.split("\n") if line.startswith(mark)]
        if not said:
            return _failed(ended.stopped or ended.errors.strip()[-2000:] or f"it ended with {ended.status}")
        reward = float(said[-1])
        return Graded(reward) if math.isfinite(reward) else _failed(f"it returned {reward}")


def _failed(why: str) -> Graded:
    return Graded(0.0, {"python_grader_runtime_error": True, "python_grader_runtime_error_details": why})
