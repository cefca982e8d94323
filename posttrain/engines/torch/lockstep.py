"""Trainings in lockstep: what several policies learn from at one time is computed as one batch, and what they are asked
after their lessons is begun at one time.

Eight small batches of eight adapters take less time as one than one by one, above all on a GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress

from posttrain.engines.torch.stems import Slotted
from posttrain.engines.torch.training import Lesson
from posttrain.types import Metrics

Waiting = tuple[Lesson, "asyncio.Future[Metrics]"]


class Lockstep:
    """Members, by adapter, that wait for one another with each lesson, and `learn` them together (training.Trainer).
    Who wants completions has had its lessons; when all have, or have left, `ask` is given all that are wanted.

    That all wait, and not only for whom happens to be there, makes a seed give the same bits.
    """

    def __init__(
        self,
        adapters: Iterable[str],
        learn: Callable[[Sequence[Lesson]], Awaitable[list[Metrics]]],
        ask: Callable[[Sequence[Slotted]], Awaitable[None]],
    ) -> None:
        self.members, self._learn, self._ask = set(adapters), learn, ask
        self._asked: list[Slotted] = []
        self._waiting: dict[str, Waiting] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def learn(self, lesson: Lesson) -> Metrics:
        """The lesson's metrics, once all members have come to their next lesson or have left.

        Raises RuntimeError when the member still waits with another one.
        """
        if lesson.adapter in self._waiting:
            raise RuntimeError(f"policy {lesson.adapter} keeps step: await each forward_backward before the next")
        future: asyncio.Future[Metrics] = asyncio.get_running_loop().create_future()
        self._waiting[lesson.adapter] = lesson, future
        self._begin_when_complete()
        try:
            return await future
        except asyncio.CancelledError:
            lesson.wanted = False
            raise

    def want(self, adapter: str, writings: Sequence[Slotted]) -> None:
        """Completions that a member wants, which leaves with this."""
        self._asked += writings
        self.leave(adapter)

    def fail(self, error: RuntimeError, adapter: str = "") -> None:
        """Tells those who have asked and wait for the others: of one adapter, which is waited for no more, or all."""
        failed = [writing for writing in self._asked if not adapter or writing.adapter == adapter]
        self._asked = [writing for writing in self._asked if writing not in failed]
        for writing in failed:
            writing.done(error)
        self.members.discard(adapter)
        with suppress(RuntimeError):  # outside of a loop nobody can be begun
            asyncio.get_running_loop()
            self._begin_when_complete()

    def leave(self, adapter: str) -> None:
        """This member is waited for no more."""
        self.members.discard(adapter)
        self._begin_when_complete()

    def _begin_when_complete(self) -> None:
        if self._waiting and self.members <= self._waiting.keys():
            together = [self._waiting[adapter] for adapter in sorted(self._waiting)]
            self._waiting = {}
            self._begin(self._learn_together(together))
        if self._asked and not self.members:
            asked, self._asked = self._asked, []
            self._begin(self._ask_together(sorted(asked, key=lambda writing: writing.adapter)))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask_together(self, asked: Sequence[Slotted]) -> None:
        try:
            await self._ask(asked)
        except BaseException as error:  # the loop is ending, maybe: nobody shall wait for it
            told = error if isinstance(error, Exception) else RuntimeError("whoever asked last has left")
            for writing in asked:
                writing.done(told)
            if not isinstance(error, Exception):
                raise

    async def _learn_together(self, together: Sequence[Waiting]) -> None:
        wanted = [(lesson, future) for lesson, future in together if lesson.wanted]
        failed = False
        try:
            found = await self._learn([lesson for lesson, _ in wanted]) if wanted else []
        except Exception as error:
            if len(wanted) == 1 and not wanted[0][1].done():
                wanted[0][1].set_exception(error)
            failed = True
        except BaseException:  # the loop is ending, or a loss raised what is no Exception: nobody shall wait for it
            for _, future in wanted:
                future.cancel()
            raise
        if failed and len(wanted) > 1:  # each by itself, then: it shall concern only whom it does
            for one in wanted:
                await self._learn_together([one])
        elif not failed:
            for (_, future), metrics in zip(wanted, found, strict=True):
                if not future.done():
                    future.set_result(metrics)
