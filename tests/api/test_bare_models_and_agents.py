"""A bare model that is judged on a task with agents is all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.api import teaching
from posttrain.types import Candidate, UserError


def test_a_bare_model_is_all_the_agents_of_a_task(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    async def noted(candidate: Candidate, *_: Any) -> None:
        found.append(candidate)
        raise UserError("enough", place="here", remedy="none")

    monkeypatch.setattr(teaching, "evaluate_candidate", noted)
    with pytest.raises(UserError, match="enough"):
        teaching.judge(str(tiny_model_folder), "team_sums", runs=tmp_path)
    assert [*found[0].team()] == ["main", "adder"] and found[0].agents["adder"].instructions.startswith("Add the two")
