"""Tables as text: a header, then one record a line, with commas (or, in European exports, semicolons) between."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from posttrain.tasks.records import Record, read_text
from posttrain.types import UserError

csv.field_size_limit(sys.maxsize)  # a cell may hold a whole document


def read(path: Path) -> list[Record]:
    text = read_text(path)
    header = text.split("\n", 1)[0]
    return read_table(path, text, ";" if ";" in header and "," not in header else ",")


def read_table(path: Path, text: str, delimiter: str) -> list[Record]:
    """The records of a table; an empty cell is None.  Raises UserError for a ragged line or a doubtful header."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[Record] = []
    start = 1
    try:
        header = [name.strip() for name in next(lines, [])]
        _check_header(header, path)
        start = lines.line_num + 1
        for cells in lines:
            if cells:
                if len(cells) != len(header):
                    raise UserError(
                        f"{len(cells)} cells, but the header has {len(header)}",
                        place=f"{path}:{start}",
                        remedy="put quotes around text that holds the delimiter or a newline",
                    )
                values = (cell if cell.strip() else None for cell in cells)
                records.append(Record(f"{path}:{start}", dict(zip(header, values, strict=True))))
            start = lines.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"not a valid table: {error}",
            place=f"{path}:{start}",
            remedy="look for a quote that is opened and not closed",
        ) from error
    return records


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"the column {twice[0]!r} is there twice", place=f"{path}:1", remedy="rename one of them")
