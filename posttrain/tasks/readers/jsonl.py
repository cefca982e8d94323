"""JSON lines: one object a line.  Lines end at a newline only: U+2028 and its kin may stand inside a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain.tasks.records import Record, plain, read_text
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    records = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                fields = json.loads(line, parse_constant=_refuse, object_pairs_hook=_once)
            except ValueError as error:
                raise UserError(
                    f"not valid JSON: {error}", place=place, remedy="each line is one JSON object"
                ) from error
            if not isinstance(fields, dict):
                raise UserError(
                    f"a {type(fields).__name__}, not an object",
                    place=place,
                    remedy='each line is one object, such as {"input": ..., "target": ...}',
                )
            records.append(Record(place, plain(fields, place)))
    return records


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; write null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is given twice")
    return fields
