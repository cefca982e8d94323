"""A record: one line of somebody's file, whatever the format, with the place it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.types import UserError


@dataclass(frozen=True)
class Record:
    """`place` is `file:line` (or `file:record` where a format has no lines); an absent value is None."""

    place: str
    fields: Mapping[str, Any]


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
