"""Which column of a stranger's table is asked, and which is wanted: guessed from names, then from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.tasks import promptfoo
from posttrain.tasks.records import Record
from posttrain.tasks.rows import OF_THEIR_OWN, Columns, plain_text
from posttrain.tasks.shapes import shape_of
from posttrain.types import Row, UserError

ASKED = (
    "input",
    "inputs",
    "text",
    "question",
    "query",
    "prompt",
    "utterance",
    "message",
    "sentence",
    "instruction",
    "email",
    "ticket",
    "review",
    "comment",
    "body",
    "content",
    "document",
    "article",
    "problem",
    "description",
    "user_input",
    "source",
    "title",
)
"""Names of columns that hold what is asked, likeliest first."""
WANTED = (
    "target",
    "targets",
    "label",
    "labels",
    "gold",
    "expected",
    "ground_truth",
    "reference",
    "category",
    "class",
    "intent",
    "answer",
    "answers",
    "output",
    "completion",
    "response",
    "sentiment",
    "topic",
    "queue",
    "tag",
    "label_text",
    "summary",
    "translation",
    "solution",
    "rating",
    "score",
)
"""Names of columns that hold what is wanted, likeliest first."""
SAID = (
    "answer",
    "prediction",
    "predicted",
    "predicted_label",
    "response",
    "output",
    "completion",
    "generated",
    "label",
    "target",
    "category",
    "text",
)
"""Names of columns that hold what a system said, likeliest first."""
TAKEN = {
    "id": (("id",), "the rows' own ids"),
    "slices": (("slices",), "groups that reports show apart"),
    "contexts": (("contexts", "retrieved_contexts"), "passages your system had retrieved; candidates see them too"),
    "answer": (
        ("answer", "response"),
        "what your running system said; it is compared as `yours`, unless --answers is given",
    ),
}
"""What a row may have beside what is asked and wanted: the columns that hold it, and what it is taken as."""
FULL = 0.9
"""Share of rows with a value from which a column counts as filled in."""
NEITHER = ("", "id", "index", "idx", "unnamed: 0", "uuid", "split", "slices", "contexts", "date", "timestamp")


@dataclass(frozen=True)
class Guess:
    """The columns to take (None: the rows have a shape that says so itself), and why, in words."""

    columns: Columns | None
    notes: tuple[str, ...]


def guess_columns(
    records: Sequence[Record],
    file: str,
    asked: str = "",
    wanted: Sequence[str] = (),
    *,
    judged_otherwise: bool = False,
) -> Guess:
    """The columns of a table.  What the user names is taken; the rest is guessed, or UserError says what to name.

    Where answers are `judged_otherwise` than by what is wanted, no column needs to say that.
    """
    first = records[0]
    shape = shape_of(first)
    if shape and not asked and not wanted:
        said = first.fields.get(promptfoo.NOTE)
        return Guess(None, (f"{len(records):,} rows read from {file} ({shape})", *([said] if said else [])))
    columns = list(dict.fromkeys(name for record in records[:1000] for name in record.fields))
    free = [
        name
        for name in columns
        if name.casefold() not in NEITHER
        and name not in wanted
        and any(record.fields.get(name) is not None for record in records)
    ]
    inputs = (
        tuple(name.strip() for name in asked.split(","))
        if asked and asked not in columns
        else (asked,)
        if asked
        else ()
    )
    targets = tuple(dict.fromkeys(wanted))
    both = next((name for name in inputs if name in targets), None)
    if both is not None:
        raise UserError(
            f"the column {both!r} is both asked and wanted", place=first.place, remedy="name another --target"
        )
    if not inputs and not targets:
        inputs = _named(free, ASKED) or inputs
    if not targets:
        targets = _guess_target([name for name in free if name not in inputs], records)
    if not inputs:
        inputs = _guess_input([name for name in free if name not in targets], records)
    if not inputs or not (targets or judged_otherwise):
        raise UserError(
            "cannot tell which column is asked and which is wanted",
            place=first.place,
            remedy=f"say --input COLUMN --target COLUMN; columns: {', '.join(columns)}",
        )
    guessed = " (guessed; --input and --target say otherwise)" if not (asked and wanted) else ""
    unused = [name for name in columns if name not in (*inputs, *targets, *OF_THEIR_OWN)]
    named = f"asked: {_words(inputs)}" + (f"; wanted: {_words(targets)}" if targets else "")
    notes = [f"{len(records):,} rows read from {file}", named + guessed]
    if unused:
        notes.append(f"not used: {_words(unused)}")
    data = next((name for name in (*inputs, *targets) if _like_data(name, records)), None)
    if data is not None:
        notes.append(f"is there a header? {data!r} was taken as a column's name; if it is data, write names above it")
    return Guess(Columns(inputs, targets), tuple(notes))


def taken(records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """Notes of what the rows of these records have without anybody having named it, and how to say otherwise."""
    notes = []
    for field, (columns, meaning) in TAKEN.items():
        if not any(row.answer is not None if field == "answer" else getattr(row, field) for row in rows):
            continue
        column = next((name for name in columns if any(name in record.fields for record in records)), "")
        plain = column and not any(isinstance(record.fields.get(column), Mapping) for record in records)
        wanted = f"say --target {column} if it is what is wanted, " if field == "answer" else ""
        otherwise = f" ({wanted}rename it if it is something else)" if plain else ""
        notes.append(f"{column or 'the last assistant message'}: taken as {meaning}{otherwise}")
    return notes


def input_column(records: Sequence[Record]) -> Columns | None:
    """The column that is asked in rows nobody has labelled (None: the rows have a shape that says so)."""
    first = records[0]
    if shape_of(first) or "input" in first.fields:
        return None
    free = [name for name in first.fields if name.casefold() not in NEITHER]
    inputs = tuple(free) if len(free) == 1 else _named(free, ASKED)
    if not inputs:
        raise UserError(
            "cannot tell which column is asked",
            place=first.place,
            remedy=f"say --input COLUMN; columns: {', '.join(first.fields)}",
        )
    return Columns(inputs)


def answer_columns(records: Sequence[Record], *, need_input: bool) -> Columns:
    """The columns of a file of answers: what was asked (unless ids say it) and what was said, as a target."""
    first = records[0]
    free = [name for name in first.fields if name.casefold() not in NEITHER and name not in first.binary]
    inputs = _named(free, ASKED) if need_input or len(free) > 1 else ()
    rest = [name for name in free if name not in inputs]
    said = _named(rest, SAID) or tuple(rest if len(rest) == 1 else ())
    if not said or (need_input and not inputs):
        raise UserError(
            "cannot tell which column is the answer" if inputs else "neither ids nor inputs of the task",
            place=first.place,
            remedy="call the columns `id` or `input`, and `answer`",
        )
    return Columns(inputs, said)


def _named(free: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    by_name = {name.casefold(): name for name in reversed(free)}
    return next(((by_name[name],) for name in names if name in by_name), ())


def _guess_target(free: Sequence[str], records: Sequence[Record]) -> tuple[str, ...]:
    """By name, full columns before those with gaps; else the only column left; else the only one that repeats."""
    full = [name for name in free if len(_texts(name, records)) >= FULL * len(records)]
    named = _named(full, WANTED) or _named(free, WANTED)
    if named or len(free) == 1:
        return named or tuple(free)
    repeating = [name for name in free if len(set(_texts(name, records))) <= max(2, len(records) / 5)]
    return tuple(repeating) if len(repeating) == 1 else ()


def _guess_input(free: Sequence[str], records: Sequence[Record]) -> tuple[str, ...]:
    """By name; else the column with the longest texts."""
    named = _named(free, ASKED)
    longest = sorted(free, key=lambda name: -sum(map(len, _texts(name, records))))
    return named or tuple(longest[:1])


def _like_data(name: str, records: Sequence[Record]) -> bool:
    """Whether a column's name is a sentence, or one of the column's own values: a file without a header."""
    return len(name.split()) > 4 or name in _texts(name, records)


def _texts(name: str, records: Sequence[Record]) -> list[str]:
    values: list[Any] = [record.fields.get(name) for record in records]
    return [plain_text(value) for value in values if value is not None]


def _words(names: Sequence[str]) -> str:
    return ("columns " if len(names) > 1 else "column ") + ", ".join(names)
