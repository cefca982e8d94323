"""What a repaired grader would have paid for rollouts that are written down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from posttrain.evaluation.rescoring import rescored
from posttrain.types import Message, Output, Row, Score, Task, UserError

ROWS = tuple(Row(f"r{i}", (Message("user", f"What is {i} + 1?"),), str(i + 1)) for i in range(4))


class Exact:
    async def grade(self, row: Row, answer: str) -> Score:
        if answer == "fails":
            raise ValueError("no")
        return Score(float(answer == row.target), answer == row.target)


TASK = Task("sums", "1", "", "", {"train": ROWS}, Exact(), Output())


def record(step: int, row: int, completion: str, reward: float | None, **more: Any) -> dict[str, Any]:
    return {"step": step, "row": f"r{row}", "completion": completion, "reward": reward, "turns": [], **more}


def test_each_step_then_and_now_and_who_loses_most() -> None:
    records = [record(0, 0, "1", 1.0), record(0, 1, "ok", 1.0), record(0, 2, "ok", 1.0), record(0, 3, "4", 0.5),
               record(10, 0, "ok", 1.0), record(10, 1, "no", 1.0), record(10, 2, "lost", None), record(10, 3, "fails", 1.0)]
    found = asyncio.run(rescored(TASK, records))
    first, last = found.steps
    assert (first.step, first.rollouts, first.before, first.after, first.less, first.more) == (0, 4, 0.875, 0.5, 2, 1)
    assert (last.step, last.rollouts, last.before, last.after, last.less) == (10, 2, 1.0, 0.0, 2)
    assert found.losers == (("ok", 3, 1.0, 0.0, "r1"), ("no", 1, 1.0, 0.0, "r1")) and found.failed == 1
    assert found.rollouts == 6 and found.mean("after") == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(0, 9, "1", 1.0)], "not of this task"),
        ([], "not of this task"),
        ([record(0, 1, "1", 1.0, turns=[{"completion": "1", "reward": 1.0}])], "scored by their world"),
    ],
)
def test_what_cannot_be_graded_again_is_refused(records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asyncio.run(rescored(TASK, records))
