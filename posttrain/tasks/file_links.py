"""`file://NAME` in somebody's configuration: what a text, JSON or YAML file beside it holds.  No program is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from posttrain.discovery import find
from posttrain.tasks.records import gather, read_json, read_text
from posttrain.types import UserError

LINK = "file://"
TEXTS = (".txt", ".md", ".j2", ".html", ".xml")


def is_link(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith(LINK)


def followed(value: Any, folder: Path, place: str) -> Any:
    """What is in the file of a link: data if it is JSON or YAML, else its text; any other value as it is.

    Raises UserError for a file that is none of these, or broken; `place` is where the link stands.
    """
    if not is_link(value):
        return value
    path = folder / value.removeprefix(LINK)
    ending = path.suffix.lower()
    if ending in TEXTS:
        return read_text(path).strip()
    if ending not in (".json", ".yaml", ".yml"):
        remedy = f"write what it gives into the configuration, or into a file of {', '.join(TEXTS)}, .json or .yaml"
        raise UserError(f"{value} is no file that can be read here", place=place, remedy=remedy)
    data = read_json(path) if ending == ".json" else find("tasks.readers", "yaml").document(path)
    (record,) = gather([(str(path), data)], lambda item, _: {"data": item})  # of JSON's types only, whatever YAML has
    return record.fields["data"]


def followed_text(value: Any, folder: Path, place: str) -> Any:
    """As `followed`, where a text is wanted: data is written as JSON."""
    found = followed(value, folder, place)
    return found if not is_link(value) or isinstance(found, str) else json.dumps(found, ensure_ascii=False)
