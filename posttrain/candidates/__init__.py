"""Whatever can answer a row: one file per kind, saved and loaded as one folder.

Each file has a class (`types.Candidate`) and `load(folder, data, open_policy)`, where `data` is what its `save` wrote
to candidate.json.  To add a kind, add a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from posttrain.discovery import find
from posttrain.runs import read_json
from posttrain.types import Candidate, Policy, UserError

OpenPolicy = Callable[[str, Path | None], Policy]
"""Gives the policy of a base model, with the adapter in a folder if there is one."""


def load(folder: Path, open_policy: OpenPolicy | None = None) -> Candidate:
    """The candidate saved in `folder`.  Those with a model in them need `open_policy`.  Raises UserError."""
    path = folder / "candidate.json"
    data = read_json(path)
    if not isinstance(data, dict) or "class" not in data:
        raise UserError(
            "not a saved candidate: it has no class",
            place=str(path),
            remedy="give a folder that a run wrote for one of its candidates",
        )
    candidate: Candidate = find("candidates", data["class"]).load(folder, data, open_policy)
    return candidate
