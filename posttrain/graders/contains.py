"""The target occurs in the answer: as a text, or as a regular expression built around it.

Where each row has a pattern of its own, use `assertions`.  Long answers that list everything pass; prefer `exact` or
`choice` where an answer can be short.
"""

from __future__ import annotations

import re

from posttrain.types import RolloutError, Row, Score, target_text

WORD = r"(?<!\w){target}(?!\w)"


class Grader:
    """Options: `pattern`, a regular expression in which `{target}` stands for the escaped target and which is
    searched for anywhere in the answer (default: the target as whole words); `ignore_case`."""

    def __init__(self, *, pattern: str = WORD, ignore_case: bool = True) -> None:
        if "{target}" not in pattern:
            raise ValueError(f"pattern {pattern!r} does not mention {{target}}; patterns of rows go with `assertions`")
        self.pattern, self.flags = pattern, re.IGNORECASE if ignore_case else re.NOFLAG
        try:
            re.compile(pattern.replace("{target}", "x"))
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error

    async def grade(self, row: Row, answer: str) -> Score:
        if row.target is None or not target_text(row.target).strip():
            raise RolloutError("grader", f"row {row.id} has no target")
        target = target_text(row.target).strip()
        found = re.search(self.pattern.replace("{target}", re.escape(target)), answer, self.flags) is not None
        return Score(float(found), found, explanation="" if found else f"{target!r} is not in the answer")
