"""How long an answer takes: twenty rows one at a time, after a warm-up, and then by eight users at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from posttrain.comparison.latency import measure
from posttrain.types import Completion, Message, OnText, Rollout, Row, Sampling

SECONDS = 0.02
ROWS = [Row(f"r{i}", (Message("user", "good day"),), "yes") for i in range(100)]


@dataclass
class Waiter:
    """Answers each request after a while, and counts those that wait with it.  The first is slow: a cold start."""

    name: str = "waiter"
    kind: Any = "prompt"
    model: str = ""
    under_way: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)  # (row, how many were under way with it)

    async def attempt(self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None,  # noqa: ARG002
                      on_text: OnText | None = None) -> list[list[Rollout]]:  # noqa: ARG002
        (row,) = rows
        self.under_way += 1
        self.asked.append((row.id, self.under_way))
        await asyncio.sleep(SECONDS if len(self.asked) > 1 else 20 * SECONDS)
        self.under_way -= 1
        return [[Rollout(row, completion=Completion("yes", "stop"))]]

    async def save(self, folder: Path) -> None:
        raise NotImplementedError(folder)


def test_it_is_measured_alone_and_under_eight_users() -> None:
    waiter = Waiter()
    measured = asyncio.run(measure(waiter, ROWS))
    warm_up, alone, loaded = waiter.asked[:2], waiter.asked[2:22], waiter.asked[22:]
    rows = [row for row, _ in alone]
    assert len(set(rows)) == 20 and rows != [row.id for row in ROWS[:20]], "drawn from all"
    assert [row for row, _ in warm_up] == rows[:2] and all(together == 1 for _, together in (*warm_up, *alone))
    assert [row for row, _ in loaded] == rows and max(together for _, together in loaded) == 8
    assert SECONDS <= measured.latency.p50 < 10 * SECONDS, "the cold start is not counted"


def test_the_busy_time_under_load_is_shared_by_the_requests() -> None:
    measured = asyncio.run(measure(Waiter(), ROWS))
    waves = 20 / 8
    assert len(measured.request_seconds) == 20
    assert sum(measured.request_seconds) == pytest.approx(waves * SECONDS, rel=1.5), "not 20 times"
    assert sum(measured.request_seconds) < 0.5 * 20 * SECONDS


def test_a_request_that_failed_at_once_is_not_a_quick_answer() -> None:
    @dataclass
    class Refusing(Waiter):
        refuses: frozenset[str] = frozenset()

        async def attempt(self, rows: Sequence[Row], **_: Any) -> list[list[Rollout]]:  # type: ignore[override]
            if rows[0].id in self.refuses:
                return [[Rollout(rows[0], error="chat: 429")]]
            return await super().attempt(rows)

    every = [row.id for row in ROWS]
    some = asyncio.run(measure(Refusing(refuses=frozenset(every[::2])), ROWS))
    assert some.latency and some.latency.p50 >= SECONDS and 0 < len(some.request_seconds) < 20
    none = asyncio.run(measure(Refusing(refuses=frozenset(every)), ROWS))
    assert none.latency is None and none.request_seconds == ()
