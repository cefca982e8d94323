"""Parquet tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet

from posttrain.tasks.records import Record, gather
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    try:
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError as error:
        raise UserError("no such file", place=str(path), remedy="check the path") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"not a Parquet file: {error}", place=str(path), remedy="write it again") from error
    rows = ((f"{path}, row {number}", row) for number, row in enumerate(table.to_pylist(), 1))
    return gather(rows, lambda row, _: row)
