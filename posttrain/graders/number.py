"""The last number in the answer is the target, within a tolerance.

Decimal, not binary, arithmetic: 0.1 and 0.10 are one number, and a tolerance means what it says.  Numbers are written
the English way: "1,234.5".  "1,5" and "1 000" are two numbers each, of which the last, 5 and 0, is the answer.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from posttrain.types import RolloutError, Row, Score, target_text

NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?(?!\w)")
UNIT = re.compile(r"[\s$€£¥%.*]*")


def last_number(text: str) -> Decimal | None:
    """The last finite number written in `text` ("1,234.5", "-3", "\u22123", ".5", "2e3"), or None."""
    for match in reversed(list(NUMBER.finditer(text))):
        try:
            value = Decimal(match.group().replace(",", "").replace("\u2212", "-"))
        except InvalidOperation:  # an exponent beyond what Decimal holds
            continue
        if value.is_finite():
            return value
    return None


class Grader:
    """Options: `tolerance`, the largest absolute difference that counts as right;
    `relative_tolerance`, the same as a share of the target's size.  The looser of the two holds.

    Parts: `parsed`, a number can be read; `valid`, the answer is a number and nothing else (but a sign of
    currency or percent, a full stop, bold type), or, where its target is more, the same text but for the numbers.
    """

    def __init__(self, *, tolerance: float = 0.0, relative_tolerance: float = 0.0) -> None:
        if tolerance < 0 or relative_tolerance < 0:
            raise ValueError("a tolerance cannot be negative")
        self.tolerance, self.relative_tolerance = Decimal(str(tolerance)), Decimal(str(relative_tolerance))

    async def grade(self, row: Row, answer: str) -> Score:
        wanted = "" if row.target is None else target_text(row.target)
        target = last_number(wanted)
        if target is None:
            raise RolloutError("grader", f"the target of row {row.id} is not a number: {row.target!r}")
        value = last_number(answer)
        parts = {"parsed": float(value is not None), "valid": float(_has_form(answer, wanted))}
        if value is None:
            return Score(0.0, False, parts, "no number in the answer")
        right = abs(value - target) <= max(self.tolerance, self.relative_tolerance * abs(target))
        return Score(float(right), right, parts, "" if right else f"{value} instead of {target}")


def _has_form(answer: str, wanted: str) -> bool:
    return _bare(answer) if _bare(wanted) else NUMBER.sub("#", answer.strip()) == NUMBER.sub("#", wanted.strip())


def _bare(answer: str) -> bool:
    numbers = list(NUMBER.finditer(answer))
    return len(numbers) == 1 and UNIT.fullmatch(NUMBER.sub("", answer)) is not None
