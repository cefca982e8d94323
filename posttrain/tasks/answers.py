"""Rows and answers from other files: inputs to predict, and what a system the user already runs has said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.tasks.columns import answer_columns, input_column
from posttrain.tasks.readers import read_records
from posttrain.tasks.records import Record
from posttrain.tasks.rows import Columns, make_rows, plain_text
from posttrain.tasks.shapes import shape_of, translate
from posttrain.types import Row, Task, UserError, target_text

TABLES_OF_TEXT = (".csv", ".tsv")


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

    The file must have every row of `splits`; answers to other rows do no harm.  A row that has null for an answer is
    left out of the result: nothing is known of it.  An empty answer is an answer, and so is an empty cell of a table
    of text, which has no other way to write it.  Raises UserError that counts the rows that the file does not have.
    """
    records = read_records(file)
    rows = [row for given in task.splits.values() for row in given]
    ids = {row.id for row in rows}
    by_id = any(plain_text(record.fields.get("id")) in ids for record in records)
    said = _answers(records, by_id, "" if Path(file).suffix.lower() in TABLES_OF_TEXT else None)
    keys = {row.id: row.id if by_id else _key(row) for row in rows}
    answers = {row: said[key] for row, key in keys.items() if key in said}
    wanted = [row.id for split in splits for row in task.rows(split)]
    missing = [row for row in wanted if row not in answers]
    remedy = "give an answer for each row, with its id or its exact input"
    if missing:
        strangers = said.keys() - set(keys.values())
        also = f"; {len(strangers):,} of its {len(said):,} answers are to no row of the task" if strangers else ""
        raise UserError(
            f"{len(missing):,} of {len(wanted):,} {' and '.join(splits)} rows have no answer, such as "
            f"{missing[0]}{also}",
            place=str(file),
            remedy=remedy,
        )
    if all(answers[row] is None for row in wanted):
        raise UserError(f"no {' or '.join(splits)} row has an answer", place=str(file), remedy=remedy)
    return {row: answer for row, answer in answers.items() if answer is not None}


def _answers(records: Sequence[Record], by_id: bool, blank: str | None) -> Mapping[str, str | None]:
    """Answers by id or by input; `blank` is what nothing in the place of an answer means."""
    columns = None if shape_of(records[0]) else answer_columns(records, need_input=not by_id)
    made, problems = ({}, []) if columns and by_id else make_rows(records, "row", columns=columns)
    if problems:
        raise problems[0]
    rows = list(made.values())
    keys = [row.id if by_id else _key(row) for row in rows] or [plain_text(one.fields.get("id")) for one in records]
    said = [_cell(one.fields.get(columns.target[0])) for one in records] if columns else _said(records, rows)
    places = [record.place for record in records]
    return _once([(k, blank if a is None else a, place) for k, a, place in zip(keys, said, places, strict=True)])


def _cell(value: Any) -> str | None:
    return None if value is None else plain_text(value)


def _said(records: Sequence[Record], rows: Sequence[Row]) -> list[str | None]:
    """What rows of a known shape say: their target only where none of them has a field for an answer.

    A target beside such a field is the wanted answer, which nobody gave.
    """
    if any(row.answer is not None for row in rows) or any("answer" in translate(record) for record in records):
        return [row.answer for row in rows]
    return [None if row.target is None else target_text(row.target) for row in rows]


def _key(row: Row) -> str:
    """What was asked, whatever its white space; instructions aside."""
    return " ".join(" ".join(message.content for message in row.messages if message.role != "system").split())


def _once(found: Sequence[tuple[str, str | None, str]]) -> dict[str, str | None]:
    answers: dict[str, str | None] = {}
    for key, answer, place in found:
        if answers.setdefault(key, answer) != answer:
            raise UserError(
                "a second, different answer to the same row",
                place=place,
                remedy="give every row its id, or keep one answer",
            )
    return answers
