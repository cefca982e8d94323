"""How long one request takes: alone, and with 8 users at once.  Never batch time divided by batch size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from posttrain.comparison.results import Latency
from posttrain.evaluation.drawing import drawn
from posttrain.types import Candidate, Row

ROWS = 20
WARM_UP = 2
USERS = 8


@dataclass(frozen=True)
class Measured:
    """Latencies, and busy device seconds of each row under load (its time, shared by those served beside it)."""

    latency: Latency
    request_seconds: tuple[float, ...]


async def measure(candidate: Candidate, rows: Sequence[Row]) -> Measured:
    """Times up to 20 rows one at a time, after two to warm up, then the same rows sent by 8 users at once."""
    rows = drawn(rows, ROWS)
    for row in rows[:WARM_UP]:
        await candidate.attempt([row])
    alone = [await _timed(candidate, row) for row in rows]
    waiting = list(enumerate(rows))
    loaded = [0.0] * len(rows)

    async def user() -> None:
        while waiting:
            i, row = waiting.pop(0)
            loaded[i] = await _timed(candidate, row)

    started = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(USERS)))
    busy = time.perf_counter() - started
    share = busy / sum(loaded)
    return Measured(
        Latency(
            float(numpy.percentile(alone, 50)), float(numpy.percentile(alone, 95)), float(numpy.percentile(loaded, 95))
        ),
        tuple(seconds * share for seconds in loaded),
    )


async def _timed(candidate: Candidate, row: Row) -> float:
    started = time.perf_counter()
    await candidate.attempt([row])
    return time.perf_counter() - started
