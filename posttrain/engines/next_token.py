"""Drawing the next token: constraint, temperature, truncation, and a random stream of the request's own."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.engines.constraints import Constraint
from posttrain.types import Sampling


class NextToken:
    """What the model says of the next token, as logits [vocabulary].

    Completions that are alike so far draw from it each for itself; what their draws have in common is computed once.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self._logprobs: dict[float, Tensor] = {}
        self._masses: dict[tuple[float, int, float], Tensor] = {}

    def logprobs(self, temperature: float) -> Tensor:
        """Log-probabilities [vocabulary] at a temperature (0: greedy, which has those of temperature 1)."""
        if temperature not in self._logprobs:
            self._logprobs[temperature] = (self.logits.float() / (temperature or 1.0)).log_softmax(dim=0)
        return self._logprobs[temperature]

    def draw(
        self, sampling: Sampling, constraint: Constraint | None, generator: torch.Generator
    ) -> tuple[int, float]:
        """The next token, and the log-probability of that choice among what the constraint allows."""
        logprobs = self.logprobs(sampling.temperature)
        allowed = constraint.allowed(logprobs.shape[0]).to(logprobs.device) if constraint else None
        if allowed is not None:
            logprobs = logprobs[allowed].log_softmax(dim=0)
        if sampling.temperature == 0:
            choice = int(logprobs.argmax())
        else:
            mass = self._mass(sampling) if allowed is None else _cumulated(logprobs, sampling)
            # inverse transform: one random number for each token, whatever the size of the vocabulary
            point = torch.rand((), generator=generator, dtype=torch.float64).to(mass.device) * mass[-1]
            choice = int(torch.searchsorted(mass, point, right=True))
        return choice if allowed is None else int(allowed[choice]), float(logprobs[choice])

    def _mass(self, sampling: Sampling) -> Tensor:
        key = (sampling.temperature, sampling.top_k, sampling.top_p)
        if key not in self._masses:
            self._masses[key] = _cumulated(self.logprobs(sampling.temperature), sampling)
        return self._masses[key]


def _cumulated(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [choices] after truncation, each added to those before it."""
    return truncate(logprobs, sampling.top_k, sampling.top_p).double().exp().cumsum(dim=0)


def truncate(logprobs: Tensor, top_k: int, top_p: float) -> Tensor:
    """Log-probabilities [choices], -inf but for the `top_k` likeliest (0: all), and of these the smallest set of mass
    `top_p`."""
    if top_k and top_k < logprobs.shape[0]:
        logprobs = logprobs.masked_fill(logprobs < logprobs.topk(top_k).values[-1], float("-inf"))
    if top_p < 1:
        ordered, order = logprobs.softmax(dim=0).sort(descending=True)
        beyond = order[ordered.cumsum(0) - ordered >= top_p]
        logprobs = logprobs.index_fill(0, beyond, float("-inf"))
    return logprobs
