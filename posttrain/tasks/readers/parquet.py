"""Parquet tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet

from posttrain.tasks.records import Record, plain
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except FileNotFoundError as error:
        raise UserError("no such file", place=str(path), remedy="check the path") from error
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"not a Parquet file: {error}", place=str(path), remedy="write it again") from error
    places = (f"{path}:{number}" for number in range(1, len(rows) + 1))
    return [Record(place, plain(row, place)) for place, row in zip(places, rows, strict=True)]
