"""A program's functions, tested from outside: whatever it does in its process, only what it returns counts.

Two processes in the sandbox: one holds the program, and one the task's tests, which see values of plain types only.
The program can end itself, write a mark that says "passed", replace `==` or the functions of a test library: all that
happens where nobody looks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.sandbox.isolation import Isolation
from posttrain.sandbox.running import Limits, Program

MOST_SAID = 16 * 2**20
"""Bytes of all the values that are returned."""

LONGEST_FIRST_LINE = 2**16
"""Bytes of what a program says of its loading, which is read here and not by the checker."""

CHECKER_SECONDS = 3
"""The tests may take so much longer than the program, so that they are there to judge one that took too long."""


@dataclass(frozen=True)
class Verdict:
    """Of one test: whether it passed, else why not."""

    passed: bool
    why: str = ""


def tested(
    source: str,
    tests: Sequence[str | Mapping[str, Any]],
    function: str,
    *,
    setup: str = "",
    limits: Limits | None = None,
    isolation: Isolation = "bubblewrap",
) -> list[Verdict]:
    """A verdict for each test.  Blocks; raises UserError where there is no isolation.

    A test is Python that asserts, with the function by its name, or defines `check(candidate)`, after `setup` was run;
    or it is data, {"arguments": [...], "returns": value}.
    """
    limits = replace(limits or Limits(), output_bytes=MOST_SAID)
    longer = replace(limits, seconds=limits.seconds + CHECKER_SECONDS)
    with (
        Program(source, "callee.py", limits=limits, isolation=isolation) as program,
        Program("", "checker.py", limits=longer, isolation=isolation) as checker,
    ):
        failure = why_not_loaded(program)
        if failure is not None:
            return [Verdict(False, failure)] * len(tests)
        checker.write(_line({"setup": setup, "function": function, "tests": list(tests)}))
        gone: bytes | None = None
        while (line := checker.read_line()) is not None:
            if line.startswith(b"V"):
                return [Verdict(why is None, why or "") for why in json.loads(line[1:])["verdicts"]]
            if gone is None:
                program.write(line[1:] + b"\n")
                answer = program.read_line()
                gone = b"G" + _gone(program).encode() if answer is None else None
            checker.write((b"A" + (answer or b"") if gone is None else gone) + b"\n")
        return [Verdict(False, f"the tests did not end: {_gone(checker)}")] * len(tests)


def why_not_loaded(program: Program) -> str | None:
    """Why a program that is run by callee.py did not load; None when it did."""
    line = program.read_line(at_most=LONGEST_FIRST_LINE)
    if line is None:
        return f"it did not load: {_gone(program)}"
    try:
        told = json.loads(line)
        return f"it did not load: {told['raised'][2]}" if "raised" in told else None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return "it did not load: it wrote something else"


def _gone(program: Program) -> str:
    return program.finish().stopped or "its process ended"


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
