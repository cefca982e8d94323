"""The one thread that begins all torch calls: they never compete for the cores (threads.py shares these out).

Adapters take turns, job by job, and the jobs of one adapter run in the order they came.  After each job the sampler
takes a step, so that decoding and training micro-batches take turns too.  A job that *changes* an adapter's weights
waits until the completions under way in that adapter are at their end, and none is begun before it is done.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Result = TypeVar("Result")

CLOSE_SECONDS = 60
"""How long `close` waits for the job at hand."""


REST_SECONDS = 10
"""So long after the last completion the decoder rests.  One that comes sooner finds its memory in place, which a
virtual machine may take longer to hand out than the completion takes."""


class Decoder(Protocol):
    """What writes completions, step by step (sampler.Sampler)."""

    @property
    def busy(self) -> bool:
        """Whether a completion is waiting or under way."""
        ...

    def quiet(self, adapter: str) -> bool:
        """Whether no completion of this adapter is under way."""
        ...

    def step(self, held: Collection[str]) -> None:
        """Writes a little; begins no completion of the adapters in `held`."""
        ...

    def fail(self, error: BaseException) -> None:
        """Tells those whom a failed step concerns."""
        ...

    def fail_all(self, error: BaseException) -> None: ...

    def rest(self) -> None:
        """Gives back the memory that it keeps for more completions: none are waiting or under way."""
        ...


@dataclass(frozen=True)
class Job(Generic[Result]):
    """`adapter` None: run at once.  `changes`: the weights of `adapter`."""

    future: Future[Result]
    work: Callable[[], Result]
    adapter: str | None
    changes: bool

    def run(self) -> None:
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self.work())
            except BaseException as error:  # it belongs to whoever asked, on their thread
                self.future.set_exception(error)


class TorchThread:
    """Runs jobs and the decoder's steps."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._arrivals: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._jobs: dict[str, deque[Job[Any]]] = {}  # by adapter, the one to be served next first; none is empty
        self._later: deque[Job[Any]] = deque()  # taken from the arrivals, but not sorted yet: one at most
        self._closed, self._lock = False, threading.Lock()
        self._rests_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="posttrain-torch", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[], Result], adapter: str | None = None, *, changes: bool = False
    ) -> Future[Result]:
        """Queues a job; the future carries its result or exception.  Raises RuntimeError when the thread is closed."""
        job = Job(Future(), work, adapter, changes)
        with self._lock:
            if self._closed:
                raise _closed()
            self._arrivals.put(job)
        return job.future

    async def run(self, work: Callable[[], Result], adapter: str | None = None, *, changes: bool = False) -> Result:
        """Runs a job without blocking the event loop."""
        return await asyncio.wrap_future(self.submit(work, adapter, changes=changes))

    async def run_all(self, pieces: Sequence[Callable[[], Result]], adapter: str) -> list[Result]:
        """Runs jobs of one adapter with none other of it in between.  When one fails the rest is given up."""
        futures = [self.submit(piece, adapter) for piece in pieces]
        try:
            return [await asyncio.wrap_future(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()  # of no effect on those that are done

    def close(self) -> None:
        """Ends the thread after the job at hand.  All other jobs and all completions fail: the engine was closed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._arrivals.put(None)
        self._thread.join(CLOSE_SECONDS)

    # ---- on the thread

    def _run(self) -> None:
        while self._take_arrivals():
            job = self._next_job()
            if job:
                job.run()
            if self._decoder.busy:
                try:
                    self._decoder.step({job.adapter for job in self._pending_changes() if job.adapter})
                except BaseException as error:  # as in Job.run: it belongs to those who wait for completions
                    self._decoder.fail(error)
                self._rests_at = time.monotonic() + REST_SECONDS
            elif self._rests_at and time.monotonic() >= self._rests_at:
                self._decoder.rest()
                self._rests_at = None
        self._decoder.fail_all(_closed())
        for job in (job for jobs in self._jobs.values() for job in jobs):
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(_closed())

    def _take_arrivals(self) -> bool:
        """Runs what is to be run at once, and sorts the rest by adapter; False when the thread is to end.

        Up to the first job of an adapter that came after one run at once, which may have handed in a prompt: that
        shall get its chance to begin before the weights it was meant for change.
        """
        idle = not (self._jobs or self._decoder.busy)
        ran_at_once = False
        while True:
            try:
                job = self._later.popleft() if self._later else self._arrivals.get(idle, self._until_rest())
            except queue.Empty:
                return True
            if job is None:
                return False
            idle = False
            if job.adapter is None:
                job.run()
                ran_at_once = True
            elif ran_at_once:
                self._later.append(job)
                return True
            else:
                self._jobs.setdefault(job.adapter, deque()).append(job)

    def _until_rest(self) -> float | None:
        return max(0.0, self._rests_at - time.monotonic()) if self._rests_at else None

    def _next_job(self) -> Job[Any] | None:
        """The first job of the adapter whose turn it is, or None when all must wait."""
        for adapter, jobs in self._jobs.items():
            job = jobs[0]
            if job.changes and not job.future.cancelled() and not self._decoder.quiet(adapter):
                continue
            jobs.popleft()
            del self._jobs[adapter]
            if jobs:
                self._jobs[adapter] = jobs  # behind the others
            return job
        return None

    def _pending_changes(self) -> list[Job[Any]]:
        return [job for jobs in self._jobs.values() for job in jobs if job.changes and not job.future.cancelled()]


def _closed() -> RuntimeError:
    return RuntimeError("the engine was closed before this was done")
