"""Files into records.  A format is a file: `x.csv` is read by csv.py's function `read(source)`.

To read another format, add a module named like the file's ending.
"""

from __future__ import annotations

from pathlib import Path

from posttrain.discovery import find, names
from posttrain.tasks.records import Record
from posttrain.types import UserError

ALIASES = {"ndjson": "jsonl", "yml": "yaml", "pq": "parquet"}
HUB = "hub:"


def formats() -> list[str]:
    """The endings of files that can be read, without their dot."""
    return sorted({*names("tasks.readers"), *ALIASES} - {"hub"})


def read_records(source: str | Path) -> list[Record]:
    """Every record of a file, or of a data set on the hub (`hub:NAME[:config][@split]`), in order.

    Raises UserError for a format nobody reads, a broken file, and a file without records.
    """
    if str(source).startswith(HUB):
        records: list[Record] = find("tasks.readers", "hub").read(str(source)[len(HUB) :])
    else:
        path = Path(source)
        ending = path.suffix.lower().lstrip(".")
        if ending not in formats():
            raise UserError(
                f"cannot read {'.' + ending if ending else 'a name without an ending'}",
                place=str(path),
                remedy=f"give one of .{', .'.join(formats())}, or hub:NAME",
            )
        records = find("tasks.readers", ALIASES.get(ending, ending)).read(path)
    if not records:
        raise UserError("no rows", place=str(source), remedy="give a file with at least one row")
    return records
