"""Attention of a forest on a CPU: every ancestor is attended to once, by all its descendants in one product.

A softmax over keys that were attended to in parts is the sum of the parts' results, weighed by what their scores sum to
(log-sum-exp; arXiv:1805.02867, section 3.1).  And the gradient of a part is that of a plain softmax over its keys,
given the sum over *all* keys (arXiv:2205.14135, algorithm 4).  So no mask is needed between an ancestor and those that
hang on it, and keys are neither copied nor read once per descendant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch import capped_attention
from posttrain.engines.torch.forest import Segment, Span
from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.sight import Sight

BLOCK_TOKENS = 64
"""Segments that lie together are attended to by one another in one call of about so many tokens, with a mask: a call
for each of many short completions would cost more than what it saves.  (192: a step of training takes 5 % longer.)"""

FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
"""What functional.scaled_dot_product_attention calls on a CPU; only so the log-sum-exp is to be had."""


@dataclass(frozen=True)
class Part:
    """Queries that attend to keys, the spans counted from the first of each; `own`: to themselves, causally."""

    queries: Span
    keys: Span
    own: bool


@dataclass(frozen=True)
class Masked:
    """A part as it is computed in layers of one window."""

    queries: slice
    keys: slice
    own: bool
    causal: bool
    mask: Tensor | None  # additive [queries, keys]
    blind: Tensor | None  # [queries]: those that see no key of this part


class MergedAttention:
    """Attention of one layout."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self._masked: dict[int | None, list[Masked]] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """q [1, heads, tokens, size], k and v [1, key-value heads, trunk and tokens, size] -> like q."""
        window = manner.window
        if window not in self._masked:
            found = [self._mask(part, window, q.dtype) for part in self.parts(window)]
            self._masked[window] = [part for part in found if part]
        return _Merged.apply(q, k, v, self._masked[window], manner)

    def parts(self, window: int | None) -> list[Part]:
        """What is computed in layers of one window."""
        segments = self.sight.forest.segments
        if window is not None:
            segments = [piece for segment in segments for piece in split(segment, max(window, BLOCK_TOKENS))]
        return parts(segments, self.sight.trunk_length)

    def _mask(self, part: Part, window: int | None, dtype: torch.dtype) -> Masked | None:
        """None for keys that no query sees any more."""
        at, seen_keys, sight = slice(*part.queries), slice(*part.keys), self.sight
        all_near = window is None or sight.query_positions[at].max() - sight.key_positions[seen_keys].min() < window
        if all_near and sight.seen_until[seen_keys].min() >= part.queries[1]:
            return Masked(at, seen_keys, part.own, part.own, None, None)
        seen = sight(torch.arange(*part.queries)[:, None], torch.arange(*part.keys)[None], window)
        seeing = seen.any(dim=1).nonzero()
        if not len(seeing):
            return None
        first, last = int(seeing[0]), int(seeing[-1]) + 1
        at, seen = slice(at.start + first, at.start + last), seen[first:last]
        blind = ~seen.any(dim=1)
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        return Masked(at, seen_keys, part.own, False, mask, blind if blind.any() else None)


@dataclass(frozen=True)
class Seen:
    """Keys and values [1, key-value heads, keys, size] that all queries attend to, but for an additive mask."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None  # [queries, keys]


def attend_to_parts(q: Tensor, seen: Sequence[Seen], manner: Manner) -> tuple[Tensor, Tensor]:
    """q [1, heads, queries, size] -> like q, without a gradient, and the log-sum-exp of the scores [1, heads, queries].
    Every query must see a key of the first part."""
    out, total = _attend(q, seen[0].keys, seen[0].values, manner, mask=seen[0].mask)
    for part in seen[1:]:
        more, more_total = _attend(q, part.keys, part.values, manner, mask=part.mask)
        if part.mask is not None:
            more_total.masked_fill_((part.mask == float("-inf")).all(dim=1), float("-inf"))
        out.lerp_(more, _share_of(more_total, total).to(out.dtype))
        total = torch.logaddexp(total, more_total)
    return out, total


def _share_of(more: Tensor, others: Tensor) -> Tensor:
    """Of the softmax over all keys, from the log-sum-exp [1, heads, queries] of some and of the others."""
    return torch.sigmoid(more - others)[..., None]


def _attend(
    q: Tensor, k: Tensor, v: Tensor, manner: Manner, *, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See capped_attention.forward."""
    if manner.cap is not None:
        return capped_attention.forward(q, k, v, manner, causal=causal, mask=mask)
    found: tuple[Tensor, Tensor] = FORWARD(q, k, v, 0.0, causal, attn_mask=mask, scale=manner.scale)
    return found


def parts(segments: Sequence[Segment], trunk_length: int) -> list[Part]:
    """First the blocks of the layout, each seeing itself; then all that see a segment from outside of its block."""
    blocks = cut(segments)
    own = [Part((block[0].start, block[-1].end), (block[0].start, block[-1].end), True) for block in blocks]
    above = [
        Part((block[-1].end, segment.reach), (segment.start, segment.end), False)
        for block in blocks
        for segment in block
        if segment.reach > block[-1].end
    ]
    shifted = [
        Part(part.queries, (part.keys[0] + trunk_length, part.keys[1] + trunk_length), part.own)
        for part in [*own, *above]
    ]
    trunk = [Part((0, segments[-1].end), (0, trunk_length), False)] if trunk_length else []
    return shifted + trunk


def split(segment: Segment, most: int) -> list[Segment]:
    """The segment as a chain of such of at most so many tokens: through a window, each is seen from the next only."""
    starts = range(segment.start, segment.end, most)
    return [replace(segment, start=start, end=min(start + most, segment.end)) for start in starts]


def cut(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Blocks of at most `BLOCK_TOKENS`, or of one segment."""
    blocks: list[list[Segment]] = []
    for segment in segments:
        if blocks and segment.end - blocks[-1][0].start <= BLOCK_TOKENS:
            blocks[-1].append(segment)
        else:
            blocks.append([segment])
    return blocks


class _Merged(torch.autograd.Function):
    """What the parts come to together.  Those that are their `own` come first and cover every query once."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, found: Sequence[Masked], manner: Manner) -> Tensor:
        out, total = _room(q), q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        for part in found:
            seen = k[:, :, part.keys], v[:, :, part.keys]
            more, more_total = _attend(q[:, :, part.queries], *seen, manner, causal=part.causal, mask=part.mask)
            if part.blind is not None:
                more_total.masked_fill_(part.blind, float("-inf"))
            if part.own:
                out[:, :, part.queries], total[:, :, part.queries] = more, more_total
            else:
                so_far = total[:, :, part.queries]
                out[:, :, part.queries].lerp_(more, _share_of(more_total, so_far).to(out.dtype))
                total[:, :, part.queries] = torch.logaddexp(so_far, more_total)
        out, total = manner.drain(out, total)
        ctx.found, ctx.manner = found, manner
        ctx.save_for_backward(q, k, v, out, total)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, total = ctx.saved_tensors
        of_q, of_k, of_v = _room(q), _room_but_trunk(k, q), _room_but_trunk(v, q)
        for part in ctx.found:
            at, seen = part.queries, part.keys
            given = gradient[:, :, at], q[:, :, at], k[:, :, seen], v[:, :, seen], out[:, :, at], total[:, :, at]
            if ctx.manner.cap is None:
                more_q, more_k, more_v = BACKWARD(*given, 0.0, part.causal, attn_mask=part.mask, scale=ctx.manner.scale)
            else:
                more_q, more_k, more_v = capped_attention.backward(
                    *given, ctx.manner, causal=part.causal, mask=part.mask
                )
            if part.own:
                of_q[:, :, at], of_k[:, :, seen], of_v[:, :, seen] = more_q, more_k, more_v
            else:
                of_q[:, :, at] += more_q
                of_k[:, :, seen] += more_k
                of_v[:, :, seen] += more_v
        return of_q, of_k, of_v, None, None


def _room(like: Tensor) -> Tensor:
    """Room for as much [1, heads, tokens, size], token by token: so the model goes on with it."""
    _, heads, tokens, size = like.shape
    return like.new_empty(1, tokens, heads, size).transpose(1, 2)


def _room_but_trunk(keys: Tensor, queries: Tensor) -> Tensor:
    """Room for a gradient: what comes before the forest's own keys is zero, these are written by their `own` part."""
    room = _room(keys)
    room[:, :, : keys.shape[2] - queries.shape[2]] = 0
    return room
