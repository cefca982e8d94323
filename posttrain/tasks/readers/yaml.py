"""YAML: a list of mappings, or a promptfoo configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posttrain.tasks.readers.json import records_of
from posttrain.tasks.records import Record, read_text
from posttrain.types import UserError


def read(path: Path) -> list[Record]:
    value = document(path)
    return records_of(value, path) if value is not None else []


def document(path: Path) -> Any:
    """What a YAML file holds.  Raises UserError, with the line where it is known."""
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or error
        raise UserError(f"not valid YAML: {problem}", place=place, remedy="mend the file") from error
    except RecursionError as error:
        raise UserError("not valid YAML: nested too deeply", place=str(path), remedy="mend the file") from error
