"""One JSON file: an array of objects, or a promptfoo configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.tasks.promptfoo import linked, tests
from posttrain.tasks.records import Record, gather, read_json
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    return records_of(read_json(path), path)


def records_of(value: Any, path: Path) -> list[Record]:
    """The records of a parsed document: its items, or the tests of a promptfoo configuration."""
    configured = isinstance(value, dict)
    items = tests(value, str(path)) if configured else value
    if not isinstance(items, list):
        raise UserError(
            "neither an array of objects nor a promptfoo configuration",
            place=str(path),
            remedy="write one object a line in a .jsonl file",
        )

    def fields(item: Any, place: str) -> Mapping[str, Any]:
        if not isinstance(item, dict):
            raise UserError(f"a {type(item).__name__}, not an object", place=place, remedy="each item is one row")
        return linked(item, path.parent, place) if "vars" in item and not configured else item

    return gather(((f"{path}, item {number}", item) for number, item in enumerate(items, 1)), fields)
