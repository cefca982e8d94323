"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from posttrain.types import UserError

Runs = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same numbers.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Stop after this long, at a usable result.", min=0.1)]
Input = Annotated[str, typer.Option("--input", help="Column that holds what is asked (guessed if not given).")]
Target = Annotated[str, typer.Option("--target", help="Column(s) that hold what is wanted: a or a,b,c.")]


def names(text: str) -> list[str]:
    """A comma-separated option as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """Repeated NAME=VALUE options.  Raises UserError for one without a name."""
    found = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            raise UserError(
                f"{value!r} is not NAME=VALUE", place=option, remedy=f"for example {option} ours=production.jsonl"
            )
        found[name] = rest
    return found


def print_json(document: Any) -> None:
    """The one document of a --json command."""
    print(json.dumps(document, ensure_ascii=False, indent=1, default=str))
