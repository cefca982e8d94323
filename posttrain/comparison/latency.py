"""How long one request takes: alone, and with 8 users at once.  Never batch time divided by batch size.

A request that failed, maybe at once, says nothing of how long an answer takes: it is left out.
"""

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
    """Latencies, None when nothing was answered, and busy device seconds of each row under load (its time, shared by
    those served beside it)."""

    latency: Latency | None
    request_seconds: tuple[float, ...]


async def measure(candidate: Candidate, rows: Sequence[Row]) -> Measured:
    """Times up to 20 rows one at a time, after two to warm up, then the same rows sent by 8 users at once."""
    rows = drawn(rows, ROWS)
    for row in rows[:WARM_UP]:
        await candidate.attempt([row])
    alone = [seconds for row in rows if (seconds := await _timed(candidate, row)) is not None]
    waiting = list(rows)
    loaded: list[float] = []

    async def user() -> None:
        while waiting:
            seconds = await _timed(candidate, waiting.pop(0))
            if seconds is not None:
                loaded.append(seconds)

    started = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(USERS)))
    busy = time.perf_counter() - started
    if not alone or not loaded:
        return Measured(None, ())
    p50, p95 = numpy.percentile(alone, (50, 95))
    share = busy / sum(loaded)
    return Measured(
        Latency(float(p50), float(p95), float(numpy.percentile(loaded, 95))),
        tuple(seconds * share for seconds in loaded),
    )


async def _timed(candidate: Candidate, row: Row) -> float | None:
    """Seconds until the answer; None when there is none."""
    started = time.perf_counter()
    ((rollout,),) = await candidate.attempt([row])
    return None if rollout.error else time.perf_counter() - started
