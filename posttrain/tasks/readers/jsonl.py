"""JSON lines: one object a line.  Lines end at a newline only: U+2028 and its kin may stand inside a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.tasks.records import Record, gather, parse_json, read_text
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    lines = enumerate(read_text(path).split("\n"), 1)
    return gather(((f"{path}:{number}", line) for number, line in lines if line.strip()), _fields)


def _fields(line: str, place: str) -> Mapping[str, Any]:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", place=place, remedy="each line is one JSON object") from error
    if not isinstance(fields, dict):
        raise UserError(
            f"a {type(fields).__name__}, not an object",
            place=place,
            remedy='each line is one object, such as {"input": ..., "target": ...}',
        )
    return fields
