"""Attention to some keys, of a layer that caps its scores, with the sum of the scores: what the CPU's kernels, which
know no caps, give of other layers (merged_attention.py).

All scores of some queries are in memory at once, and none are kept: the backward call computes them again, and what of
each reaches q, k and v, from what the softmax over *all* keys came to (arXiv:2205.14135, algorithm 4).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from posttrain.engines.torch.manner import Manner

MOST_SCORES = 1 << 22
"""Numbers in memory at once, of each of the few steps."""


def forward(
    q: Tensor, k: Tensor, v: Tensor, manner: Manner, *, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """q [1, heads, queries, size], k and v [1, key-value heads, keys, size] -> like q, and the log-sum-exp of scores
    [1, heads, queries]; of queries that see no key: zero, and -inf.

    `mask` is additive [queries, keys]; with `causal` the first query sees the first key, and each one more.
    """
    out, total = torch.empty_like(q), q.new_empty(q.shape[:3])
    for rows in _pieces(q, k):
        scores = _seen(_bent(q[:, :, rows], k, manner), _hidden(rows, k, causal, mask))
        sums = scores.logsumexp(dim=2)
        weights = (scores - sums.clamp(min=torch.finfo(sums.dtype).min)[..., None]).exp_()
        out[:, :, rows] = _apart(weights @ v[0], q[:, :, rows])
        total[:, :, rows] = sums.view(total[:, :, rows].shape)
    return out, total


def backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    total: Tensor,
    manner: Manner,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v by that of `out`, which with `total` is what came of all keys (and sinks)."""
    of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows in _pieces(q, k):
        bent = _bent(q[:, :, rows], k, manner)
        scores = _seen(bent, _hidden(rows, k, causal, mask))
        above, queries = _together(gradient[:, :, rows], k), _together(q[:, :, rows], k)
        weights = (scores - total[:, :, rows].reshape(*scores.shape[:2], 1)).exp_()
        expected = (above * _together(out[:, :, rows], k)).sum(dim=2, keepdim=True)
        of_v[0] += weights.transpose(1, 2) @ above
        of_scores = (above @ v[0].transpose(1, 2)).sub_(expected).mul_(weights)
        of_scores = of_scores.mul_(manner.slope(bent)).mul_(manner.scale)
        of_q[:, :, rows] = _apart(of_scores @ k[0], q[:, :, rows])
        of_k[0] += of_scores.transpose(1, 2) @ queries
    return of_q, of_k, of_v


def _pieces(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Queries, as many as may have their scores in memory."""
    most = max(1, MOST_SCORES // (q.shape[1] * k.shape[2]))
    return (slice(start, start + most) for start in range(0, q.shape[2], most))


def _bent(q: Tensor, k: Tensor, manner: Manner) -> Tensor:
    """Scores [key-value heads, queries of the heads that share one, keys]."""
    return manner.bend(_together(q, k) @ k[0].transpose(1, 2) * manner.scale)


def _seen(scores: Tensor, hidden: Tensor | None) -> Tensor:
    """-inf where a query does not see a key."""
    heads, _, keys = scores.shape
    return scores if hidden is None else (scores.view(heads, -1, *hidden.shape) + hidden).view(heads, -1, keys)


def _hidden(rows: slice, k: Tensor, causal: bool, mask: Tensor | None) -> Tensor | None:
    """What is added to the scores of some queries [queries, keys]."""
    if causal:
        places = torch.arange(k.shape[2], device=k.device)
        return k.new_zeros(()).where(places <= places[rows, None], float("-inf"))
    return None if mask is None else mask[rows]


def _together(x: Tensor, k: Tensor) -> Tensor:
    """[1, heads, queries, size] -> [key-value heads, queries of the heads that share one, size]."""
    return x.reshape(k.shape[1], -1, x.shape[3])


def _apart(x: Tensor, like: Tensor) -> Tensor:
    """And back."""
    return x.view(like.shape)
