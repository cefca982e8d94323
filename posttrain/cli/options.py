"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from posttrain.api.engines import Precision
from posttrain.types import UserError

Runs = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same numbers.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Stop after this long, at a usable result.", min=0.1)]
Input = Annotated[str, typer.Option("--input", help="Column that holds what is asked (guessed if not given).")]
Target = Annotated[str, typer.Option("--target", help="Column(s) that hold what is wanted: a or a,b,c.")]

InPrecision = Annotated[
    Precision | None,
    typer.Option("--precision", help="Of a local model on a CPU; int8 answers faster, and now and then otherwise."),
]


def names(text: str) -> list[str]:
    """A comma-separated option as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """Repeated NAME=VALUE options.  Raises UserError for one without a name, and for a name that comes twice."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            raise UserError(
                f"{value!r} is not NAME=VALUE", place=option, remedy=f"for example {option} ours=production.jsonl"
            )
        if name in found:
            raise UserError(f"{name!r} is given twice", place=option, remedy="give each its own name")
        found[name] = rest
    return found


def refuse_together(given: Mapping[str, bool]) -> None:
    """Raises UserError when more than one of these options is given: all but one would be ignored."""
    chosen = [option for option, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise UserError("these do not go together", place=" ".join(chosen), remedy="give one of them at a time")
