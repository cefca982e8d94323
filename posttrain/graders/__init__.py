"""Judging an answer.  Each file is one way of judging and holds one class named `Grader` (`types.Grader`).

The keyword parameters of a grader's constructor are its options in task.toml's `[grader]` table; their annotations,
one plain type each, are what values are held against.  Three names are not options but are filled in from the task for
a grader that asks for them: `labels`, `schema` and `folder`.
A grader whose answers have a form reports a part `valid`: 1.0 when the answer has that form.
To add a grader, add a file; `tests/graders` finds it and demands an example.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from posttrain.discovery import find
from posttrain.types import Grader, Output, UserError

FROM_THE_TASK = ("labels", "schema", "folder")


def load(name: str, options: Mapping[str, Any], folder: Path | None = None, output: Output | None = None) -> Grader:
    """The grader `name` with these options.  Raises UserError for an unknown name or option, and for a wrong type."""
    make = find("graders", name).Grader
    parameters = inspect.signature(make).parameters
    types = get_type_hints(make.__init__)
    known = [key for key in parameters if key not in FROM_THE_TASK]
    place = str(folder / "task.toml") if folder else f"grader {name}"
    for option, value in options.items():
        if option not in known:
            nearest = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise UserError(
                f"grader {name} has no option {option!r}",
                place=_line(place, option),
                remedy=f"{hint}known: {', '.join(known) or 'none'}",
            )
        kind = types[option]
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            message = f"option {option} of grader {name} is a {type(value).__name__}"
            raise UserError(message, place=_line(place, option), remedy=f"give a {kind.__name__}")
    output = output or Output()
    given = {"labels": output.labels, "schema": output.schema, "folder": folder}
    try:
        grader: Grader = make(**options, **{key: given[key] for key in FROM_THE_TASK if key in parameters})
    except (TypeError, ValueError) as error:
        raise UserError(f"grader {name}: {error}", place=place, remedy="correct the [grader] table") from error
    return grader


def _line(place: str, option: str) -> str:
    """The place with the line that sets the option, where it is a file."""
    lines = Path(place).read_text(encoding="utf-8").split("\n") if Path(place).is_file() else []
    number = next((number for number, line in enumerate(lines, 1) if line.strip().startswith(option)), None)
    return f"{place}:{number}" if number else place
