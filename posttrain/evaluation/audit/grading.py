"""A grader that is watched: what it gives is a reward, or the reason why it gave none, and the line where it ended."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from posttrain.graders.python import GraderRaised
from posttrain.types import Grader, RolloutError, Row

LONGEST_SECONDS = 2.0
"""For one answer; most graders take less than a millisecond."""


@dataclass(frozen=True)
class Graded:
    """`reason` says why there is no reward."""

    reward: float = 0.0
    reason: str = ""
    place: str = ""


class TooSlow(BaseException):
    """A grader took longer than it may.  No Exception: the grader might catch it."""


async def graded(grader: Grader, row: Row, answer: str) -> Graded:
    """What an answer earns.  Whatever the grader raises is its own failure."""
    try:
        with _at_most(LONGEST_SECONDS):
            score = await grader.grade(row, answer)
    except GraderRaised as error:
        return Graded(reason=error.reason, place=error.place)
    except RolloutError as error:
        return Graded(reason=error.message)
    except TooSlow:
        return Graded(reason=f"it took more than {LONGEST_SECONDS:g} seconds")
    except Exception as error:  # somebody else's code
        return Graded(reason=f"{type(error).__name__}: {error}")
    if not (math.isfinite(score.value) and 0 <= score.value <= 1):
        return Graded(reason=f"a reward of {score.value}, not a number from 0 to 1")
    return Graded(score.value)


async def paying_line(grader: Grader, row: Row, answer: str) -> str:
    """`file:line` of the last line of the task's own grader that ran for an answer; "" where that is not known."""
    path = str(getattr(grader, "path", ""))
    last = 0

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
    return f"{path}:{last}" if last else ""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TooSlow in the block; only the main thread of a process can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
