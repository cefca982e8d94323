"""The target occurs in the answer: as a text, within a regular expression, or as a regular expression itself.

Where a row has several patterns, use `assertions`.  Long answers that list everything pass; prefer `exact` or
`choice` where an answer can be short.
"""

from __future__ import annotations

import re
from dataclasses import replace

from posttrain.types import RolloutError, Row, Score, UserError, target_text

WORD = r"(?<!\w){target}(?!\w)"


class Grader:
    """Options: `pattern`, a regular expression that is searched for anywhere in the answer and in which `{target}`
    stands for the escaped target (default: the target as whole words); without it the pattern alone decides, for all
    rows alike.  `regex`: the target of each row is a regular expression.  `ignore_case`.  An empty answer is wrong."""

    def __init__(self, *, pattern: str = "", regex: bool = False, ignore_case: bool = True) -> None:
        if pattern and regex:
            raise ValueError("pattern and regex do not go together: with regex the target is the whole pattern")
        self.pattern, self.regex, self.flags = pattern or WORD, regex, re.IGNORECASE if ignore_case else re.NOFLAG
        try:
            re.compile(self.pattern.replace("{target}", "x"))
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is not a regular expression: {error}") from error

    def prepared(self, row: Row) -> Row:
        """The row with its regular expression under metadata: a pattern is no answer that could be taught or shown.

        Raises UserError when it is none.
        """
        if not self.regex or row.target is None:
            return row
        pattern = target_text(row.target)
        try:
            re.compile(pattern, self.flags)
        except re.error as error:
            message = f"the target {pattern!r} is not a regular expression: {error}"
            raise UserError(message, place=row.place, remedy="correct it, or leave regex out of [grader]") from error
        return replace(row, target=None, metadata={**row.metadata, "pattern": pattern})

    async def grade(self, row: Row, answer: str) -> Score:
        if self.regex:
            wanted = pattern = self.prepared(row).metadata.get("pattern", "")
        else:
            wanted = "" if row.target is None else target_text(row.target).strip()
            pattern = self.pattern.replace("{target}", re.escape(wanted))
        if not wanted:
            raise RolloutError("grader", f"row {row.id} has no target")
        found = bool(answer.strip()) and re.search(pattern, answer, self.flags) is not None
        return Score(float(found), found, explanation="" if found else f"{wanted!r} is not in the answer")
