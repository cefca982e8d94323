"""Judging an answer.  Each file is one way of judging and holds one class named `Grader` (`types.Grader`).

The keyword parameters of a grader's constructor are its options in task.toml's `[grader]` table.  Three names are
not options but are filled in from the task for a grader that asks for them: `labels`, `schema` and `folder`.
A grader whose answers have a form reports a part `valid`: 1.0 when the answer has that form.
To add a grader, add a file; `tests/graders` finds it and demands an example.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.discovery import find
from posttrain.types import Grader, Output, UserError

FROM_THE_TASK = ("labels", "schema", "folder")


def load(name: str, options: Mapping[str, Any], folder: Path | None = None, output: Output | None = None) -> Grader:
    """The grader `name` with these options.  Raises UserError for an unknown name or option."""
    make = find("graders", name).Grader
    parameters = inspect.signature(make).parameters
    known = [key for key in parameters if key not in FROM_THE_TASK]
    place = str(folder / "task.toml") if folder else f"grader {name}"
    for option in options:
        if option not in known:
            nearest = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise UserError(
                f"grader {name} has no option {option!r}",
                place=place,
                remedy=f"{hint}known: {', '.join(known) or 'none'}",
            )
    output = output or Output()
    given = {"labels": output.labels, "schema": output.schema, "folder": folder}
    try:
        grader: Grader = make(**options, **{key: given[key] for key in FROM_THE_TASK if key in parameters})
    except (TypeError, ValueError) as error:
        raise UserError(f"grader {name}: {error}", place=place, remedy="correct the [grader] table") from error
    return grader
