"""Tables as text with tabs between."""

from __future__ import annotations

from pathlib import Path

from posttrain.tasks.readers.csv import read_table
from posttrain.tasks.records import Record, read_text


def read(path: Path) -> list[Record]:
    return read_table(path, read_text(path), "\t")
