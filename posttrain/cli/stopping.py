"""Ctrl-C while something is taught: the first keeps what was learnt until then, the second kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from posttrain.cli import documents
from posttrain.runs import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any] | int | None


@contextmanager
def at_the_next_step() -> Iterator[Stop]:
    """Asks to stop at the first Ctrl-C, where that is heeded; else, and at the second, all is as it was before."""
    stop = Stop()
    before: dict[int, Handler] = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.heeded:
            stop.asked = True
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            os.write(documents.STDERR, b"\nStopping after this step; what is best by now is kept ... (again kills)\n")
        elif callable(handler := before[number]):
            handler(number, frame)

    for each in SIGNALS:
        signal.signal(each, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
