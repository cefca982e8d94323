"""A function of somebody's, called again and again in one process of the sandbox: to start it takes a tenth of a
second, to call it a thousandth.

Unlike what `functions` tests, it is believed: whoever wrote it is asked what it thinks.  It sees texts and gives a
number.
"""

from __future__ import annotations

import json
import threading
import time
import weakref

from posttrain.sandbox.functions import why_not_loaded
from posttrain.sandbox.running import Limits, Program

RENEW_S = 60.0
"""A process that is older is replaced before it is asked: its time is limited."""


class CallFailed(Exception):
    """It raised, took too long or ended: the message says which, for whoever wrote it."""


class Function:
    """`name` in a program's `source`: (text) -> number.  For several threads, one after another.  Raises UserError
    where there is no isolation."""

    def __init__(self, source: str, name: str, limits: Limits) -> None:
        self.source, self.name, self.limits = source, name, limits
        self._lock = threading.Lock()
        self._program: Program | None = None

    def __call__(self, text: str) -> float:
        """What it gives back.  Raises CallFailed."""
        question = json.dumps({"call": self.name, "arguments": [text], "keywords": {"dict": []}}).encode() + b"\n"
        with self._lock:
            program = self._running()
            program.write(question)
            line = program.read_line()
            if line is None:
                ended = program.finish()
                self._end()
                raise CallFailed(ended.stopped or ended.errors.strip()[-2000:] or "its process ended")
        told = json.loads(line)
        if "raised" in told:
            raise CallFailed(str(told["raised"][2]))
        return float(told["returned"])

    def _running(self) -> Program:
        """Raises CallFailed when it does not load."""
        if self._program is not None and time.monotonic() - self._program.started > RENEW_S:
            self._end()
        if self._program is None:
            program = Program(self.source, "callee.py", limits=self.limits, isolation="bubblewrap")
            program.__enter__()
            self._program = program
            self._ended = weakref.finalize(self, program.__exit__, None, None, None)
            if failure := why_not_loaded(program):
                self._end()
                raise CallFailed(failure)
        return self._program

    def _end(self) -> None:
        self._program = None
        self._ended()
