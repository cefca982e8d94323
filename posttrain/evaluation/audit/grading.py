"""A grader that is watched: what it gives is a reward, or the reason why it gave none, and the line where it ended."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from posttrain.graders.python import GraderRaised
from posttrain.types import Grader, RolloutError, Row, Score

LONGEST_SECONDS = 2.0
"""For what a grader computes for one answer; most take less than a millisecond."""

LONGEST_WAIT = 60.0
"""For an answer, with what it waits for: another program, or a model."""


@dataclass(frozen=True)
class Graded:
    """`reason` says why there is no reward."""

    reward: float = 0.0
    reason: str = ""
    place: str = ""


class TooSlow(BaseException):
    """A grader took longer than it may.  No Exception: the grader might catch it."""


class Limited:
    """An awaitable whose every stretch of computing may take `seconds`; waiting in between does not count."""

    def __init__(self, work: Coroutine[Any, Any, Score], seconds: float) -> None:
        self.work, self.seconds = work, seconds

    def __await__(self) -> Generator[Any, Any, Score]:
        send, value = self.work.send, None
        while True:
            try:
                with _watched(self.seconds):
                    waiting = send(value)
            except StopIteration as end:
                score: Score = end.value
                return score
            try:
                send, value = self.work.send, (yield waiting)
            except BaseException as error:  # cancelled, say: the grader is told
                send, value = self.work.throw, error


async def graded(grader: Grader, row: Row, answer: str, seconds: float | None = None) -> Graded:
    """What an answer earns.  Whatever the grader raises is its own failure, that it ends the process too."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            score = await Limited(grader.grade(row, answer), seconds or LONGEST_SECONDS)
    except GraderRaised as error:
        return Graded(reason=error.reason, place=error.place)
    except RolloutError as error:
        return Graded(reason=error.message)
    except (TooSlow, TimeoutError):
        return Graded(reason=f"it took more than {seconds or LONGEST_SECONDS:g} seconds")
    except (Exception, SystemExit) as error:  # somebody else's code
        return Graded(reason=f"{type(error).__name__}: {error}")
    if not (math.isfinite(score.value) and 0 <= score.value <= 1):
        return Graded(reason=f"a reward of {score.value}, not a number from 0 to 1")
    return Graded(score.value)


async def paying_line(grader: Grader, row: Row, answer: str) -> str:
    """`file:line` of the last line of the task's own grader that ran for an answer; "" where that is not known."""
    shown = getattr(grader, "path", None)
    path, last = str(Path(shown).resolve()) if shown else "", 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal last
        if event == "line":
            last = frame.f_lineno
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return local if event == "call" and frame.f_code.co_filename == path else None

    if not path:
        return ""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        await graded(grader, row, answer)
    finally:
        sys.settrace(before)
    return f"{shown}:{last}" if last else ""


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """Raises TooSlow in the block, and SystemExit where the process would end: answers may be programs, and graders may
    run them.  Only the main thread of a process can be interrupted."""

    def end(code: int = 0) -> None:
        raise SystemExit(code)

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    may_interrupt = threading.current_thread() is threading.main_thread()
    leave, os._exit = os._exit, end  # type: ignore[assignment]
    before = signal.signal(signal.SIGALRM, stop) if may_interrupt else None
    if may_interrupt:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if may_interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        os._exit = leave
