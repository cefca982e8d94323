"""Tables as text: a header, then one record a line, with commas (or, in European exports, semicolons) between."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from posttrain.tasks.records import Record, gather, read_text
from posttrain.types import UserError

csv.field_size_limit(sys.maxsize)  # a cell may hold a whole document
LOOKED_AT = 50
"""Lines, where the delimiter is in doubt."""


def read(path: Path) -> list[Record]:
    text = read_text(path)
    header = text.lstrip().removeprefix("sep=").split("\n", 1)[0]
    possible = [delimiter for delimiter in ",;\t" if delimiter in header] or [","]
    if len(possible) == 1:
        return read_table(path, text, possible[0])
    return read_table(path, text, max(possible, key=lambda delimiter: _like_the_header(text, delimiter)))


def _like_the_header(text: str, delimiter: str) -> int:
    """How many of the first lines have as many cells as the header: what else is in it is part of a name."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    table = [cells for cells in islice(lines, LOOKED_AT) if cells]
    width = len(_trimmed(table[0], 0))
    return sum(len(_trimmed(cells, width)) == width for cells in table)


def read_table(path: Path, text: str, delimiter: str) -> list[Record]:
    """The records of a table.  An empty cell is None; white space before a cell is not part of it.

    Raises UserError for a doubtful header or what is no text, Unreadable for ragged lines.
    """
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError("a NUL character", place=f"{path}:{line}", remedy="write the file again as UTF-8 text")
    lines = _lines(path, text, delimiter)
    top, names = next(lines, ("", []))
    header = _trimmed([name.strip() for name in names], 0)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"the column {twice[0]!r} is there twice", place=top, remedy="rename one of them")

    def fields(cells: list[str], place: str) -> Mapping[str, str | None]:
        cells = _trimmed(cells, len(header))
        if len(cells) != len(header):
            raise UserError(
                f"{len(cells)} cells, but the header has {len(header)}",
                place=place,
                remedy="put quotes around text that holds the delimiter or a newline",
            )
        return dict(zip(header, (cell if cell.strip() else None for cell in cells), strict=True))

    return gather(lines, fields)


def _lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each line that has any, with its place.  Raises UserError where the text is no table."""
    if text.startswith(f"sep={delimiter}"):  # Excel's own first line
        text = text.replace(f"sep={delimiter}", "", 1)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    start = 1
    try:
        for cells in lines:
            if cells:
                yield f"{path}:{start}", cells
            start = lines.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"not a valid table: {error}",
            place=f"{path}:{start}",
            remedy="look for a quote that is opened and not closed",
        ) from error


def _trimmed(cells: list[str], least: int) -> list[str]:
    """The cells without empty ones at the end, which spreadsheets add; `least` are kept."""
    end = len(cells)
    while end > least and not cells[end - 1].strip():
        end -= 1
    return cells[:end]
