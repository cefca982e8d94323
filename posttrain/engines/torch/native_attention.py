"""Attention of a forest in C: every ancestor is attended to once, for all its descendants (see merged_attention.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.merged_attention import MergedAttention
from posttrain.engines.torch.native.attention import Part, Parts, Source, attend, attend_backward, suits_attention
from posttrain.engines.torch.sight import Sight


class NativeAttention:
    """Attention of one layout; by torch (MergedAttention) where C does not compute it."""

    def __init__(self, sight: Sight) -> None:
        self._merged = MergedAttention(sight)
        self._parts = Parts([*_of_trunk(sight), *_of_segments(sight, sight.trunk_length)], sight.query_positions)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """q [1, heads, tokens, size], k and v [1, key-value heads, trunk and tokens, size] -> like q."""
        if not suits_attention(q, k, v, manner):
            return self._merged(q, k, v, manner)
        return _Attention.apply(q, k, v, self._parts, manner)


def parts_of(sight: Sight) -> tuple[Parts, Parts]:
    """Who sees what of a forest's own keys, and who of its trunk's."""
    own, trunk = _of_segments(sight, 0), _of_trunk(sight)
    return Parts(own, sight.query_positions), Parts(trunk, sight.query_positions)


def _of_trunk(sight: Sight) -> list[Part]:
    """All see it."""
    length, positions = sight.trunk_length, sight.forest.positions
    return [Part(0, len(positions), 0, length, length, min(positions) - length)] if length else []


def _of_segments(sight: Sight, first_key: int) -> list[Part]:
    """Each sees itself, and what hangs on it sees it; the keys of the first begin at `first_key`."""
    found = []
    for segment in sight.forest.segments:
        start, end, position = segment.start, segment.end, sight.forest.positions[segment.start]
        keys = start + first_key, end + first_key
        found.append(Part(start, end, *keys, 1, position))
        if segment.reach > end:
            found.append(Part(end, segment.reach, *keys, end - start, position))
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, parts: Parts, manner: Manner) -> Tensor:
        out, total = manner.drain(*attend(q, [Source(k, v, parts)], manner))
        ctx.parts, ctx.manner = parts, manner
        ctx.save_for_backward(q, k, v, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, total = ctx.saved_tensors
        of_q, of_k, of_v = attend_backward(gradient, q, Source(k, v, ctx.parts), out, total, ctx.manner)
        return of_q, of_k, of_v, None, None
