"""A completion under construction: what was written, and how the next token is drawn.

Constraint, temperature, truncation, and a random stream that belongs to the request alone: the same for every engine
that samples for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from posttrain.engines.constraints import Constraint
from posttrain.types import Sampling, StopReason


@dataclass(eq=False, kw_only=True)
class Writing:
    """One completion under way.  See types.Completion for the fields that end up there."""

    prompt: tuple[int, ...]
    sampling: Sampling
    constraint: Constraint | None
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    log_confidence: float = 0.0

    def force(self) -> list[int]:
        """Writes, and gives back, the tokens about which the constraint leaves no choice."""
        forced = self.constraint.forced() if self.constraint else []
        self.tokens += forced
        self.logprobs += [0.0] * len(forced)
        self.chosen += [False] * len(forced)
        return forced

    def take(self, logprob: Tensor, stop_tokens: Collection[int]) -> list[int]:
        """Draws the next token from log-probabilities [vocabulary] at the sampling temperature, and writes it and what
        it forces.  Gives back the tokens written."""
        token, confidence = draw(logprob, self.sampling, self.constraint, self.generator)
        self.tokens.append(token)
        self.logprobs.append(float(logprob[token]))
        self.chosen.append(True)
        self.log_confidence += confidence
        if self.constraint is None or token in stop_tokens:
            return [token]
        self.constraint.accept(token)
        return [token, *self.force()]

    def ended(self, stop_tokens: Collection[int]) -> StopReason | None:
        """Why the completion is at its end, or None.  What was forced beyond that is cut off."""
        end = next((i for i, token in enumerate(self.tokens) if token in stop_tokens), None)
        length, limit = len(self.tokens) if end is None else end + 1, self.sampling.max_tokens
        reason: StopReason | None = None if end is None else "stop"
        if length > limit or (reason is None and length == limit):
            length, reason = limit, "length"
        del self.tokens[length:], self.logprobs[length:], self.chosen[length:]
        return reason


def draw(
    logprob: Tensor,
    sampling: Sampling,
    constraint: Constraint | None,
    generator: torch.Generator,
) -> tuple[int, float]:
    """The next token from log-probabilities [vocabulary]: constraint, then top-k, then top-p, then the draw.

    Also gives the log-probability of the choice among what the constraint allowed.
    """
    allowed = constraint.allowed(logprob.shape[0]).to(logprob.device) if constraint else None
    if allowed is not None:
        logprob = logprob[allowed].log_softmax(dim=0)
    choice = _drawn(logprob, sampling, generator)
    token = choice if allowed is None else int(allowed[choice])
    return token, float(logprob[choice])


def _drawn(logprob: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The number of the choice among log-probabilities [choices]."""
    if sampling.temperature == 0:
        return int(logprob.argmax())
    # inverse transform: one random number per token, whatever the size of the vocabulary
    mass = truncate(logprob, sampling.top_k, sampling.top_p).double().exp().cumsum(dim=0)
    point = torch.rand((), generator=generator, dtype=torch.float64).to(mass.device) * mass[-1]
    return int(torch.searchsorted(mass, point, right=True))


def truncate(logprob: Tensor, top_k: int, top_p: float) -> Tensor:
    """Log-probabilities [choices], -inf but for the `top_k` likeliest (0: all), and of these the smallest set of mass
    `top_p`."""
    if top_k and top_k < logprob.shape[0]:
        logprob = logprob.masked_fill(logprob < logprob.topk(top_k).values[-1], float("-inf"))
    if top_p < 1:
        ordered, order = logprob.softmax(dim=0).sort(descending=True)
        beyond = order[ordered.cumsum(0) - ordered >= top_p]
        logprob = logprob.index_fill(0, beyond, float("-inf"))
    return logprob


def generator_for(sampling: Sampling, prompt: Sequence[int], number: int) -> torch.Generator:
    """The random stream of completion `number` of a prompt: the same whatever else is in the batch."""
    digest = hashlib.sha256(f"{sampling.seed}:{number}:{','.join(map(str, prompt))}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
