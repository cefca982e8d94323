"""A record: one line of somebody's file, whatever the format, with the place it came from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from posttrain.types import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """`place` is `file:line`, where a format has no lines `file, item N` or `file, row N`; an absent value is None.

    So is one made of bytes that are not text, as pictures are; `binary` names it.  `check` asks that none is needed.
    """

    place: str
    fields: Mapping[str, Any]
    binary: tuple[str, ...] = ()

    def check(self, names: Collection[str]) -> None:
        """Raises UserError when one of these fields is binary."""
        for name in self.binary:
            if name in names:
                remedy = "name other columns with --input and --target, or leave it out"
                raise UserError(f"the column {name!r} has bytes that are not text", place=self.place, remedy=remedy)


class _Binary(Exception):
    """Bytes that are not text."""


class Unreadable(UserError):
    """Some records of a file cannot be read: `problems` says which and why, `records` are the others."""

    def __init__(self, problems: Sequence[UserError], records: Sequence[Record]) -> None:
        first, more = problems[0], len(problems) - 1
        message = f"{first.message} (and {more:,} more like it)" if more else first.message
        super().__init__(message, place=first.place, remedy=first.remedy)
        self.problems, self.records = tuple(problems), tuple(records)


class NotJson(ValueError):
    """No JSON from `line` on.  The message has the column only: what is a line of a file has a place of its own."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def gather(items: Iterable[tuple[str, T]], fields: Callable[[T, str], Mapping[str, Any]]) -> list[Record]:
    """The records of items that come with their places.  `fields(item, place)` reads one, or raises UserError.

    Raises Unreadable, at the end, when any of them did; an error of the iteration itself is the last.
    """
    records: list[Record] = []
    problems: list[UserError] = []
    left = iter(items)
    while True:
        try:
            place, item = next(left)
        except StopIteration:
            break
        except UserError as error:
            problems.append(error)
            break
        try:
            records.append(_record(fields(item, place), place))
        except UserError as error:
            problems.append(error)
        except RecursionError:
            remedy = "flatten it; in YAML, let no alias stand within what it names"
            problems.append(UserError("nested too deeply", place=place, remedy=remedy))
    if problems:
        raise Unreadable(problems, records)
    return records


def _record(fields: Mapping[str, Any], place: str) -> Record:
    values: dict[str, Any] = {}
    binary = []
    for name, value in fields.items():
        try:
            values[str(name)] = plain(value, place)
        except _Binary:
            values[str(name)] = None
            binary.append(str(name))
    return Record(place, values, tuple(binary))


def parse_json(text: str) -> Any:
    """Strict JSON.  Raises ValueError for anything else: NaN, a key given twice, nesting beyond all sense."""
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} (column {error.colno})", error.lineno) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parsed(value: Any, what: str, place: str) -> Any:
    """A value that tables hold as the text of its JSON.  Raises UserError when the text is none."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise UserError(f"{what} is not valid JSON: {error}", place=place, remedy="mend it") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.  Raises UserError, with the line where it is known."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        line = f":{error.line}" if isinstance(error, NotJson) else ""
        several = "Extra data" in str(error)
        remedy = "call the file .jsonl if it has an object a line, else mend it" if several else "mend the file"
        raise UserError(f"not valid JSON: {error}", place=f"{path}{line}", remedy=remedy) from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; write null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is given twice")
    return fields


def plain(value: Any, place: str) -> Any:
    """`value` made of JSON's types only; NaN, which tables use for an empty cell, becomes None.

    Raises UserError for a value that JSON cannot hold, and for text that is not Unicode (half of a pair).
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise UserError("an infinite number", place=place, remedy="replace it")
        return None if math.isnan(value) else value
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError("text with half of a surrogate pair", place=place, remedy="write the file again as UTF-8")
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, place) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, place) for item in value]
    if isinstance(value, bytes):
        try:
            return plain(value.decode(), place)
        except UnicodeDecodeError as error:
            raise _Binary from error
    return str(value)  # dates and decimals


def read_text(path: Path) -> str:
    """The text of a file, without a byte-order mark.  Raises UserError when it is missing or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError("no such file", place=str(path), remedy="check the path") from error
    except IsADirectoryError as error:
        raise UserError("is a folder, not a file", place=str(path), remedy="name a file in it") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError("not UTF-8 text", place=f"{path}:{line}", remedy="save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", place=str(path), remedy="check the file") from error
