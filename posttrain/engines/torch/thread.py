"""The one thread that makes all torch calls: each Python thread would get an OpenMP team of its own.

Jobs run in the order they came; between jobs the sampler takes a step whenever completions are under way, so
that decoding and training micro-batches take turns.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


class TorchThread:
    """`step` is called again and again while `busy()`; `failed` is told when a step raises."""

    def __init__(
        self,
        busy: Callable[[], bool],
        step: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._busy, self._step, self._failed = busy, step, failed
        self._jobs: queue.SimpleQueue[tuple[Future, Callable] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="posttrain-torch", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Queues a job; the future carries its result or exception."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        return future

    async def run(self, job: Callable[[], Result]) -> Result:
        """Runs a job on the torch thread without blocking the event loop."""
        return await asyncio.wrap_future(self.submit(job))

    def close(self) -> None:
        """Ends the thread after the jobs already queued."""
        self._jobs.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while True:
            try:
                item = self._jobs.get(block=not self._busy())
            except queue.Empty:
                item = False  # type: ignore[assignment]
            if item is None:
                return
            if item:
                future, job = item
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(job())
                    except BaseException as error:  # it belongs to whoever asked, on their thread
                        future.set_exception(error)
            if self._busy():
                try:
                    self._step()
                except BaseException as error:  # as above: every waiting completion is told
                    self._failed(error)
