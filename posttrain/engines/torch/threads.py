"""How many threads a forward call on the CPU takes."""

from __future__ import annotations

import torch

SMALL_TOKENS = 256
FEW_CORES = 2
"""On two cores, calls of at most so many tokens take one: splitting a small product costs a wake-up, and where the
cores are lent (virtual machines with neighbours) two threads wait for the slower one.  Measured on such a machine:
training steps of 212 tokens 0.57 s with one thread, 0.63 to 0.98 s with two; reading 5,000 tokens 7.4 s and 5.7 s
(docs/notes/2026-11-23-upper-half.md).  A fixed rule and not a stopwatch, so that a seed gives the same bits."""


class Threads:
    """Sets the number of threads of the torch thread, call by call."""

    def __init__(self) -> None:
        self.most = torch.get_num_threads()

    def take(self, tokens: int) -> None:
        """For a forward call of so many tokens, and the backward call that follows it."""
        wanted = 1 if tokens <= SMALL_TOKENS and self.most <= FEW_CORES else self.most
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)
