"""Judging an answer.  Each file is one way of judging and holds one class named `Grader` (`types.Grader`).

The keyword parameters of a grader's constructor are its options in task.toml's `[grader]` table; their annotations,
one plain type each, are what values are held against.  Three names are not options but are filled in from the task for
a grader that asks for them: `labels`, `schema` and `folder`.
A grader with `judges_without_target` takes rows that do not say what is wanted, where none of a task does.
A grader whose answers have a form reports a part `valid`: 1.0 when the answer has that form.
To add a grader, add a file; `tests/graders` finds it and demands an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.discovery import make
from posttrain.types import Grader, Output


def load(name: str, options: Mapping[str, Any], folder: Path | None = None, output: Output | None = None) -> Grader:
    """The grader `name` with these options.  Raises UserError for an unknown name or option, and for a wrong type."""
    output = output or Output()
    given = {"labels": output.labels, "schema": output.schema, "folder": folder}
    grader: Grader = make("graders", "Grader", name, options, given, folder)
    return grader
