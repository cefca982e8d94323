"""A grader of the task's own, to begin with, and what it says of a few rows: `posttrain init --grader grade.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.types import RolloutError, Row, Task, UserError, target_text

SHOWN = 6
"""Rows."""

HEAD = '''"""What an answer is worth, from 0 to 1.  Change it until `posttrain check` and your own eyes agree.

row.text is what was asked, row.target what is wanted (a text, or a mapping of fields), row.metadata the other columns.
"""

'''
BODIES = {
    "number": '''import re


def grade(row, answer):
    """The last number in the answer is the one that is wanted."""
    numbers = re.findall(r"-?\\d+(?:\\.\\d+)?", answer.replace(",", ""))
    return float(bool(numbers) and float(numbers[-1]) == float(str(row.target).replace(",", "")))
''',
    "json": '''import json


def grade(row, answer):
    """The share of fields that are as wanted; what is not JSON is worth nothing."""
    try:
        given = json.loads(answer)
    except ValueError:
        return 0.0
    wanted = json.loads(row.target) if isinstance(row.target, str) else row.target
    if not isinstance(given, dict):
        return 0.0
    return sum(given.get(field) == value for field, value in wanted.items()) / len(wanted)
''',
    "python": '''def grade(row, answer):
    """No row says what is wanted: say here what makes an answer good."""
    raise NotImplementedError("say in grade.py what an answer is worth")
''',
    "": '''def grade(row, answer):
    """The same text as is wanted, but for capitals and space around it."""
    return float(answer.strip().lower() == str(row.target).strip().lower())
''',
}
"""By the grader that the answers themselves would have suggested."""


@dataclass(frozen=True)
class Shown:
    """A row, and what the grader gives for some answers: (which, the answer, its value or what went wrong)."""

    row: Row
    graded: tuple[tuple[str, str, float | str], ...]


def write(folder: Path, given: Path, suggested: str) -> str:
    """Writes grade.py into a task's folder: a copy of the file that was given where there is one, else a beginning.
    What was done, in words.  Raises UserError when the file cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "grade.py"
    if given.exists() and given.resolve() != place.resolve():
        try:
            place.write_text(given.read_text(encoding="utf-8"), encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot be read: {error}", place=str(given)) from error
        return f"grader: {place}, a copy of {given}"
    if place.exists():
        return f"grader: {place}, as it was"
    place.write_text(HEAD + BODIES.get(suggested, BODIES[""]), encoding="utf-8")
    return f"grader: {place}, written to begin with; change it to your own"


def shown(task: Task) -> list[Shown]:
    """What the grader says of a few rows: of the wanted answer, another row's, and none."""
    rows = [row for row in task.rows("train") if row.target is not None]
    step = max(1, len(rows) // SHOWN)
    return asyncio.run(_all(task, rows[::step][:SHOWN], [target_text(row.target or "") for row in rows]))


async def _all(task: Task, rows: Sequence[Row], targets: Sequence[str]) -> list[Shown]:
    found = []
    for row in rows:
        wanted = target_text(row.target or "")
        other = next((target for target in targets if target != wanted), "")
        answers = (("wanted", wanted), ("another row's", other), ("nothing", ""))
        found.append(Shown(row, tuple([(which, answer, await _value(task, row, answer)) for which, answer in answers])))
    return found


async def _value(task: Task, row: Row, answer: str) -> float | str:
    try:
        return (await task.grader.grade(row, answer)).value
    except RolloutError as error:
        return error.message
