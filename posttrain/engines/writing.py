"""A completion under construction: the same for every engine that samples for itself."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from posttrain.engines.constraints import Constraint
from posttrain.engines.next_token import Drawn
from posttrain.types import Sampling, StopReason, UserError


@dataclass(eq=False, kw_only=True)
class Writing:
    """One completion under way.  See types.Completion for the fields that end up there."""

    prompt: tuple[int, ...]
    sampling: Sampling
    constraint: Constraint | None
    generator: random.Random
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    log_confidence: float = 0.0
    read: int = 0  # so many tokens are known not to end it

    def force(self) -> list[int]:
        """Writes, and gives back, the tokens about which the constraint leaves no choice."""
        forced = self.constraint.forced() if self.constraint else []
        self.tokens += forced
        self.logprobs += [0.0] * len(forced)
        self.chosen += [False] * len(forced)
        self.top_logprobs += [()] * len(forced)
        return forced

    def take(self, drawn: Drawn, stop_tokens: Collection[int]) -> list[int]:
        """Writes the token drawn for it, and what that forces.  Gives back the tokens written.

        Raises UserError, and writes nothing, when the log-probability of that token is not a number.
        """
        if math.isnan(drawn.logprob):
            raise UserError(
                "what the model says of the next token is not a number: its weights have diverged",
                remedy="go back to an earlier checkpoint, and train with a smaller learning rate",
            )
        self.tokens.append(drawn.token)
        self.logprobs.append(drawn.logprob)
        self.chosen.append(True)
        self.top_logprobs.append(drawn.top)
        self.log_confidence += drawn.log_confidence
        if self.constraint is None or drawn.token in stop_tokens:
            return [drawn.token]
        self.constraint.accept(drawn.token)
        return [drawn.token, *self.force()]

    def ended(self, stop_tokens: Collection[int]) -> StopReason | None:
        """Why the completion is at its end, or None.  What was forced beyond that is cut off."""
        end = next((i for i in range(self.read, len(self.tokens)) if self.tokens[i] in stop_tokens), None)
        length, limit = len(self.tokens) if end is None else end + 1, self.sampling.max_tokens
        self.read = length
        reason: StopReason | None = None if end is None else "stop"
        if length > limit or (reason is None and length == limit):
            length, reason = limit, "length"
        for written in (self.tokens, self.logprobs, self.chosen, self.top_logprobs):
            del written[length:]
        return reason


def generator_for(sampling: Sampling, prompt: Sequence[int], number: int) -> random.Random:
    """The random stream of completion `number` of a prompt: the same whatever else is in the batch."""
    digest = hashlib.sha256(f"{sampling.seed}:{number}:{','.join(map(str, prompt))}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
