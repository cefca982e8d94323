"""Rows and answers from other files: inputs to predict, and what a system the user already runs has said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from posttrain.tasks.columns import answer_columns, input_column
from posttrain.tasks.readers import read_records
from posttrain.tasks.records import Record
from posttrain.tasks.rows import Columns, make_rows, plain_text
from posttrain.tasks.shapes import shape_of
from posttrain.types import Row, Task, UserError, target_text


def read_rows(source: str | Path, *, input: str = "", target: Sequence[str] = ()) -> tuple[Row, ...]:
    """The rows of any file that can be read; they need no target.  `input` and `target` name columns of a table.

    Raises UserError at the first row that is not one.
    """
    records = read_records(source)
    if input:
        columns: Columns | None = Columns(tuple(name.strip() for name in input.split(",")), tuple(target))
    else:
        columns = input_column(records)
        columns = Columns(columns.input, tuple(target)) if columns else None
    rows, problems = make_rows(records, "row", columns=columns)
    if problems:
        raise problems[0]
    return tuple(rows.values())


def match_answers(task: Task, file: str | Path, *, splits: Sequence[str] = ("test",)) -> dict[str, str]:
    """The answers in a file, by row id: matched by `id` where the file has ids of the task, else by input text.

    Every row of `splits` must have an answer (an empty one is an answer); answers to other rows do no harm.
    Raises UserError that counts the rows without one.
    """
    records = read_records(file)
    rows = [row for given in task.splits.values() for row in given]
    ids = {row.id for row in rows}
    by_id = any(plain_text(record.fields.get("id")) in ids for record in records)
    said = _answers(records, by_id)
    keys = {row.id: row.id if by_id else _key(row) for row in rows}
    answers = {row: said[key] for row, key in keys.items() if key in said}
    wanted = [row.id for split in splits for row in task.rows(split)]
    missing = [row for row in wanted if row not in answers]
    if missing:
        strangers = said.keys() - set(keys.values())
        also = f"; {len(strangers):,} of its {len(said):,} answers are to no row of the task" if strangers else ""
        raise UserError(
            f"{len(missing):,} of {len(wanted):,} {' and '.join(splits)} rows have no answer, such as "
            f"{missing[0]}{also}",
            place=str(file),
            remedy="give an answer for each row, with its id or its exact input",
        )
    return answers


def _answers(records: Sequence[Record], by_id: bool) -> Mapping[str, str]:
    """Answers by id or by input."""
    columns = None if shape_of(records[0]) else answer_columns(records, need_input=not by_id)
    if columns and by_id:
        found = [
            (plain_text(record.fields.get("id")), record.fields.get(columns.target[0]), record.place)
            for record in records
        ]
        return _once([(key, "" if value is None else plain_text(value), place) for key, value, place in found])
    rows, problems = make_rows(records, "row", columns=columns)
    if problems:
        raise problems[0]
    return _once([(row.id if by_id else _key(row), _said(row), place) for place, row in rows.items()])


def _said(row: Row) -> str:
    if row.answer is not None:
        return row.answer
    return "" if row.target is None else target_text(row.target)


def _key(row: Row) -> str:
    """What was asked, whatever its white space; instructions aside."""
    return " ".join(" ".join(message.content for message in row.messages if message.role != "system").split())


def _once(found: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    answers: dict[str, str] = {}
    for key, answer, place in found:
        if answers.setdefault(key, answer) != answer:
            raise UserError(
                "a second, different answer to the same row",
                place=place,
                remedy="give every row its id, or keep one answer",
            )
    return answers
