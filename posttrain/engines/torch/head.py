"""The output head: logits, and the log-probabilities that training needs, without logits that are kept.

A log-probability depends on the hidden state before it alone, so its gradient is known as soon as the logits are: the
target's weights less those expected under the softmax.  (By the chain rule, and in an order in which nothing cancels.)
What is kept for the backward call is of a hidden state's size, not the vocabulary's, and logits are computed once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posttrain.engines.torch.adapters import AdapterBank, FrozenLinear

HEAD_ROWS = 256
"""Positions whose logits are held in memory at once, in training and scoring."""


class OutputHead(FrozenLinear):
    """Frozen, without adapters.  A `cap` bends logits to less than itself (Gemma 2: arXiv:2408.00118, section 2)."""

    def __init__(self, base: nn.Linear, bank: AdapterBank, cap: float | None = None) -> None:
        super().__init__(base, bank)
        self.cap = cap

    def rows(self, x: Tensor) -> Tensor:
        """Logits [rows, vocabulary] of hidden states [rows, hidden]."""
        return self._bend(super().rows(x))

    def _bend(self, logits: Tensor) -> Tensor:
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def token_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """fp32 log-probabilities [rows] of `targets` [rows] after hidden states [rows, hidden]."""
        if torch.is_grad_enabled() and hidden.requires_grad:
            return _TokenLogprobs.apply(hidden, targets, self)
        pieces = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
        return torch.cat([_of_targets(self._log_softmax(states), wanted) for states, wanted in pieces])

    def choice_logprobs(self, hidden: Tensor, choices: Tensor, places: Tensor) -> Tensor:
        """fp32 log-probabilities [rows] among `choices` [some] alone, in the precision of the hidden states: of the
        choice at each of `places` [rows]."""
        bias = None if self.base.bias is None else self.base.bias[choices]
        among = nn.functional.linear(hidden, self.base.weight[choices], bias)
        return -nn.functional.cross_entropy(self._bend(among).float(), places, reduction="none")

    def with_slopes(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities [rows], and the gradient of each by the hidden state before it [rows, hidden]."""
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        slopes = torch.empty_like(hidden)
        frozen = self.frozen(hidden.dtype)
        for start in range(0, len(targets), HEAD_ROWS):
            rows = slice(start, start + HEAD_ROWS)
            logits = self.rows(hidden[rows]).float()
            every = logits.log_softmax(dim=1)
            logprobs[rows] = found = _of_targets(every, targets[rows])
            # by the logits: 1 - p of the target, -p of all others; where the target is sure, 1 - p must not be rounded
            of_logits = every.exp_().neg_().scatter_(1, targets[rows, None], -torch.expm1(found)[:, None])
            if self.cap is not None:
                of_logits *= 1 - (logits / self.cap).square()
            slopes[rows] = frozen.product_with_transposed(of_logits.to(hidden.dtype))
        return logprobs, slopes

    def _log_softmax(self, hidden: Tensor) -> Tensor:
        return self.rows(hidden).float().log_softmax(dim=1)


def _of_targets(every: Tensor, targets: Tensor) -> Tensor:
    return every.gather(1, targets[:, None])[:, 0]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: OutputHead) -> Tensor:
        logprobs, slopes = head.with_slopes(hidden, targets)
        ctx.save_for_backward(slopes)
        return logprobs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient[:, None].to(slopes.dtype) * slopes, None, None
