"""Answers of a running system, and what is not a saved candidate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from posttrain import candidates
from posttrain.candidates.given import GivenCandidate
from posttrain.types import Message, Row, UserError

ROWS = [Row("a", (Message("user", "one"),), answer="yes"), Row("b", (Message("user", "two"),)),
        Row("c", (Message("user", "three"),), answer="")]


def test_rows_without_an_answer_fail_and_empty_answers_do_not(tmp_path: Path) -> None:
    candidate = GivenCandidate.of("today's system", ROWS)
    asyncio.run(candidate.save(tmp_path))
    loaded = candidates.load(tmp_path)
    assert loaded == candidate and loaded.kind == "given" and loaded.model == ""
    shown: list[tuple[int, int, str]] = []
    groups = asyncio.run(loaded.attempt(ROWS, n=2, on_text=lambda *piece: shown.append(piece)))
    assert [[rollout.answer for rollout in group] for group in groups] == [["yes"] * 2, [""] * 2, [""] * 2]
    assert [group[0].error for group in groups] == ["", "given: no answer for row b", ""]
    assert [group[0].completion is None for group in groups] == [False, True, False]
    assert shown == [(0, 0, "yes"), (0, 1, "yes"), (2, 0, ""), (2, 1, "")]


@pytest.mark.parametrize(("content", "message"), [
    (None, "no such file"), ("{", "not valid JSON"), ("[]", "not a saved candidate"), ("{}", "not a saved candidate"),
    ('{"class": "constnt"}', "did you mean 'constant'")])
def test_what_is_not_a_saved_candidate_is_a_user_error(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "candidate.json").write_text(content)
    with pytest.raises(UserError, match=message):
        candidates.load(tmp_path)
