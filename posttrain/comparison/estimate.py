"""How long and how much memory, before it starts: a short calibration on the rows and the model at hand."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import psutil

from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.latency import ROWS, WARM_UP
from posttrain.evaluation.drawing import drawn
from posttrain.optimisers import Adam
from posttrain.rollouts import taught
from posttrain.techniques import _chain as chain
from posttrain.techniques import sft
from posttrain.types import Datum, Row, Task, UserError

CALIBRATION_ROWS = 24

ANSWERS = 3
"""For each of these rows, so that as many are written at once as when a split is judged: few would be slower each."""

STEP_ROWS = 2
"""In the training step that is timed: small steps, which small tasks take, are the slower ones a token."""

STEPS = 3
"""Training steps that are timed, after one that is not."""

ROWS_ALONE = 3
"""Timed one by one: a single request is as fast or slow as chance has it."""

BESIDE_OTHERS = 0.75
"""Of the time alone, for each of the requests that eight users send at once: answers are short, and their prompts have
to be read one by one.  (0.6 was found with SmolLM2-135M on two cores; a promise is better kept.)"""

CLOSING_SECONDS = 5.0
"""Kept back for the end: the tests, the charts and the pages of the report take about 3 s of one CPU core."""


@dataclass(frozen=True)
class Speed:
    """What the calibration measured: seconds per prompt token read, per row written (many at once), per row alone, and
    per token trained; and the main memory held when as many rows are written at once as ever are."""

    read: float
    write: float
    alone: float
    train: float
    memory_bytes: int


async def calibrate(candidate: PolicyCandidate, task: Task) -> Speed:
    """Reads, writes and trains a few rows (on an adapter that is thrown away).  Takes some seconds.

    Without a row that can be taught, reading is counted as writing, and nothing will be trained.
    """
    rows = drawn(task.rows("train"), CALIBRATION_ROWS)
    data = _teachable(candidate, rows)
    own = _own_tokens(candidate, task)
    await candidate.attempt(rows[:2])  # what is done once (constraints compiled, weights rounded) is not counted
    read = train = 0.0
    if data:
        await candidate.policy.logprobs(data[:2])
        read = await _seconds(candidate.policy.logprobs(data)) / (own * len(data))
        train = await _seconds_per_trained_token(sft.shape(candidate, task), rows)
    varied = replace(candidate.serving(), temperature=1.0)  # equal answers to a row would be written as one
    writing = await _seconds(candidate.attempt(rows, n=ANSWERS, sampling=varied))
    write = max(1e-4, (writing / len(rows) - read * own) / ANSWERS)
    alone = sum([await _seconds(candidate.attempt([row])) for row in rows[-ROWS_ALONE:]]) / len(rows[-ROWS_ALONE:])
    fullest = psutil.Process().memory_info().rss + candidate.policy.sampling_bytes
    return Speed(read, write, alone, train, max(peak_memory_bytes(), fullest))


def peak_memory_bytes() -> int:
    """The most main memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _teachable(candidate: PolicyCandidate, rows: Sequence[Row]) -> list[Datum]:
    """What the rows teach; those without a target, or too long, are for the techniques to complain of."""
    data = []
    for row in rows:
        with suppress(UserError):
            data.append(taught(candidate, row))
    return data


async def _seconds(work: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def _seconds_per_trained_token(candidate: PolicyCandidate, rows: Sequence[Row]) -> float:
    """Of steps as sft takes them.  The first does not count: later epochs find what it computed."""
    data = _teachable(candidate, rows)[:STEP_ROWS]
    trial = candidate.policy.fork("calibration", sft.UPPER_HALF)

    async def step() -> None:
        await trial.forward_backward(data, _likelihood)
        await trial.optim_step(Adam(1e-5))

    try:
        await step()
        seconds = [await _seconds(step()) for _ in range(STEPS)]
    finally:
        trial.drop()
    return sum(seconds) / (STEPS * sum(len(datum.tokens) for datum in data))


def _likelihood(logprobs: Sequence[Any], _: Sequence[Datum]) -> tuple[Any, dict[str, float]]:
    """Minus the sum of all log-probabilities: any loss takes as long."""
    return -sum(logprob.sum() for logprob in logprobs), {}


def _shared(candidate: PolicyCandidate, task: Task) -> int:
    """Tokens with which the prompts of all rows begin (the instructions); a single row shares none."""
    prompts = [candidate.prompt(row) for row in drawn(task.rows("train"), CALIBRATION_ROWS)]
    columns = zip(*prompts, strict=False) if len(prompts) > 1 else ()
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


@dataclass(frozen=True)
class Forecast:
    """Seconds a candidate is expected to take: teaching (searching, training) and being judged, of which `testing` are
    for the answers to the test rows."""

    teaching: float
    judging: float
    testing: float = 0.0

    @property
    def total(self) -> float:
        return self.teaching + self.judging


async def forecast(expression: str, candidate: PolicyCandidate, task: Task, speed: Speed, *, latency: bool) -> Forecast:
    """What a candidate of this chain will take.  Floors take next to nothing, learning curves included."""
    if chain.kind(expression) == "floor":
        return Forecast(1.0, 1.0)
    shaped = chain.shape(expression, candidate, task)
    own, votes = _own_tokens(shaped, task), shaped.votes
    per_row = own * speed.read + speed.write * votes
    work = chain.work(expression, task)
    judged = len(task.rows("dev")) + len(task.rows("test"))
    longer = own - _own_tokens(candidate, task)  # than what was timed alone
    per_request = speed.alone + longer * speed.read + speed.write * (votes - 1)
    timed = min(ROWS, len(task.rows("test")))
    requests = WARM_UP + (1 + BESIDE_OTHERS) * timed if latency else 0
    return Forecast(
        work.rows_answered * per_row + work.rows_trained * (own + _shared(shaped, task)) * speed.train,
        judged * per_row + requests * per_request,
        len(task.rows("test")) * per_row,
    )


def _own_tokens(candidate: PolicyCandidate, task: Task) -> float:
    """Mean tokens of a row and its answer that it shares with no other row."""
    rows = drawn(task.rows("train"), CALIBRATION_ROWS)
    prompts = [candidate.prompt(row) for row in rows]
    return sum(map(len, prompts)) / len(rows) - _shared(candidate, task) + candidate.output.max_tokens / 2
