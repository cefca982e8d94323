"""Every objective as a pure function of log-probabilities.

A loss is called as `loss(logprobs, data)`: one tensor per datum, holding the policy's log-probabilities at the
datum's trained positions (natural log, temperature 1).  It returns a sum, never a mean, so that the result does
not depend on how a batch was cut, and a dict of metrics that are sums too; the caller gives the normaliser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from posttrain.types import Datum, Metrics

Result = tuple[Tensor, Metrics]


def aligned(values: Sequence[float], datum: Datum, like: Tensor) -> Tensor:
    """`values` (one per token) at the trained positions of `datum`: a tensor aligned with its log-probabilities."""
    return torch.tensor([values[i] for i in datum.trained], dtype=like.dtype, device=like.device)


def cross_entropy(logprobs: Sequence[Tensor], data: Sequence[Datum]) -> Result:
    """Weighted negative log-likelihood: - sum_i w_i log p(token_i)."""
    total = torch.stack(
        [
            -(aligned(datum.weights, datum, logprob) * logprob).sum()
            for logprob, datum in zip(logprobs, data, strict=True)
        ]
    ).sum()
    return total, {"negative_log_likelihood": total.item()}


def dpo(beta: float = 0.1) -> Callable[[Sequence[Tensor], Sequence[Datum]], Result]:
    """Direct preference optimisation (arXiv:2305.18290, eq. 7).

    The two data of a group are one pair, chosen first; both carry `reference_logprobs`.
    - log sigmoid(beta * ((log pi(c) - log ref(c)) - (log pi(r) - log ref(r)))), summed over pairs.
    """

    def loss(logprobs: Sequence[Tensor], data: Sequence[Datum]) -> Result:
        margins = []
        pairs = groupby(zip(logprobs, data, strict=True), key=lambda item: item[1].group)
        for group, members in pairs:
            ratios = [(logprob - aligned(datum.reference_logprobs, datum, logprob)).sum() for logprob, datum in members]
            if len(ratios) != 2:
                raise ValueError(f"group {group!r} has {len(ratios)} data; DPO needs a chosen and a rejected one")
            margins.append(ratios[0] - ratios[1])
        margin = torch.stack(margins)
        total = -functional.logsigmoid(beta * margin).sum()
        return total, {"preferred": float((margin > 0).sum()), "margin": margin.sum().item(), "pairs": len(margins)}

    return loss


def clipped_policy_gradient(
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl: float = 0.0,
) -> Callable[[Sequence[Tensor], Sequence[Datum]], Result]:
    """PPO's clipped surrogate (arXiv:1707.06347, eq. 7) per token, as GRPO uses it (arXiv:2402.03300).

    - sum_i w_i min(r_i A_i, clip(r_i, 1 - low, 1 + high) A_i), with r_i = exp(log pi - log sampler).
    With `kl` > 0 adds kl * (exp(d) - d - 1), d = log reference - log pi (the k3 estimator, same paper, eq. 4).
    """

    def loss(logprobs: Sequence[Tensor], data: Sequence[Datum]) -> Result:
        total = logprobs[0].new_zeros(())
        clipped_tokens, tokens, divergence = 0.0, 0, 0.0
        for logprob, datum in zip(logprobs, data, strict=True):
            weights = aligned(datum.weights, datum, logprob)
            advantages = aligned(datum.advantages, datum, logprob)
            ratio = (logprob - aligned(datum.logprobs, datum, logprob)).exp()
            clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
            surrogate = torch.minimum(ratio * advantages, clipped * advantages)
            total = total - (weights * surrogate).sum()
            clipped_tokens += float((surrogate < ratio * advantages).sum())
            tokens += len(logprob)
            if kl:
                distance = aligned(datum.reference_logprobs, datum, logprob) - logprob
                penalty = distance.exp() - distance - 1
                total = total + kl * (weights * penalty).sum()
                divergence += penalty.sum().item()
        return total, {"clipped": clipped_tokens, "kl": divergence, "tokens": float(tokens)}

    return loss
