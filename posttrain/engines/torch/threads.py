"""How forward calls on a CPU are spread over its cores.

Parts of a batch are computed side by side, a thread each: they meet once, at the end, where the threads of one product
meet after each product, thousands of times a call.  On cores that are lent (virtual machines with neighbours) every
meeting waits for the slower one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

SMALL_TOKENS = 256
FEW_CORES = 2
"""On two cores, calls of at most so many tokens take one thread when they cannot be parted: splitting a small product
costs a wake-up (docs/notes/2026-11-23-upper-half.md).  A fixed rule and not a stopwatch, so that a seed gives the same
bits."""


class Threads:
    """The threads of one engine: its own, which calls this, and one for each further core.

    With `whole`, no product is split: into how many parts it is may change its last bits.
    """

    def __init__(self, device: torch.device, *, whole: bool = False) -> None:
        self._before = torch.get_num_threads()
        self.most, self.whole = self._before if device.type == "cpu" else 1, whole
        self._own = threading.local()
        self._others = ThreadPoolExecutor(max(1, self.most - 1), "posttrain-part")

    def take(self, tokens: int) -> None:
        """Sets how many threads the products of a call of so many tokens, and of its backward call, are split among."""
        wanted = self.wanted(tokens)
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def wanted(self, tokens: int) -> int:
        """How many threads a call of so many tokens takes."""
        most: int = getattr(self._own, "most", self.most)
        return 1 if self.whole or (tokens <= SMALL_TOKENS and self.most <= FEW_CORES) else most

    def leave(self) -> None:
        """Gives the thread that opened the engine back as many as it had: the next engine counts them."""
        torch.set_num_threads(self._before)

    def calls(self, shares: Sequence[Sequence[int]], *, apart: bool) -> list[list[Sequence[int]]]:
        """What is computed side by side of numbered things, in their order, and of that what is computed in one call:
        a share each; `apart` one by one, and about as many by each thread."""
        if not apart:
            return [[share] for share in shares]
        numbers = list(chain(*shares))
        most = -(-len(numbers) // self.most)
        return [[[i] for i in numbers[start : start + most]] for start in range(0, len(numbers), most)]

    def side_by_side(self, parts: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of all parts, the first computed by this thread.  Raises what the first failing one raised."""
        if len(parts) == 1:
            return [parts[0]()]
        each, inference = max(1, self.most // len(parts)), torch.is_inference_mode_enabled()

        def compute(part: Callable[[], Result]) -> Result:
            self._own.most = each
            try:
                with torch.inference_mode(inference):
                    return part()
            finally:
                self._own.most = self.most

        futures = [self._others.submit(compute, part) for part in parts[1:]]
        try:
            first = compute(parts[0])
        finally:
            wait(futures)
        return [first, *(future.result() for future in futures)]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What this thread computes inside is split among no others."""
        self._own.most = 1
        try:
            yield
        finally:
            self._own.most = self.most

    def close(self) -> None:
        """Ends the other threads."""
        self._others.shutdown()


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Parts one below the other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts])
