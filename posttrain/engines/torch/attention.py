"""Attention for laid-out forests and for decoding, behind the attention registry of transformers.

A Hugging Face model calls `attend` with queries, keys and values of one layer; the `layout` given to its forward
call says which keys each token sees.  Two layouts: a `ForestLayout` (training, scoring, prefill) and a decoding
step (sampler.py).  Sliding windows are honoured; soft caps and attention sinks are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from posttrain.engines.torch.forest import Forest, Segment, Span
from posttrain.types import UserError

NAME = "posttrain"
"""Our name in the registry: load a model, then `model.set_attn_implementation(NAME)`."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [1, key-value heads, tokens, head size]."""


class Layout(Protocol):
    """Which keys each token of a forward call sees."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """q [1, heads, tokens, size], k and v [1, key-value heads, tokens, size] -> like q."""
        ...


def attend(
    module: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  (the registry's signature; layouts know better)
    *,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function: the signature is that of transformers' registry."""
    if layout is None or softcap is not None or s_aux is not None:
        what = "soft-capped attention" if softcap is not None else "attention sinks"
        raise UserError(
            f"{type(module).__name__} uses {what}, which this engine does not compute",
            remedy="choose a model without it, for example a Llama, Qwen, Mistral or SmolLM",
        )
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    return layout.attend(module.layer_idx, q, k, v, scale, sliding_window).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


BLOCK_TOKENS = 192
"""Segments that lie together and see the same above them are attended to in one call of about so many tokens: a group
of short completions is one product with a mask, and not one for each."""


@dataclass(frozen=True)
class Block:
    """Segments of a forest that lie one after another and all see the spans `above`, which lie before them."""

    segments: tuple[Segment, ...]
    above: tuple[Span, ...]

    @property
    def span(self) -> Span:
        return self.segments[0].start, self.segments[-1].end


def blocks(segments: Sequence[Segment]) -> list[Block]:
    """Cuts segments (in the order of the layout) into blocks of at most `BLOCK_TOKENS`, or of one segment."""
    found: list[list[Segment]] = []
    for segment in segments:
        if found:
            first = found[-1][0]
            above = first.ancestors
            fits = segment.end - first.start <= BLOCK_TOKENS
            if fits and segment.ancestors[: len(above)] == above:
                found[-1].append(segment)
                continue
        found.append([segment])
    return [Block(tuple(members), members[0].ancestors) for members in found]


class ForestLayout:
    """A forest, its tokens preceded by an optional trunk of cached keys and values that all of them see.

    With `store`, the keys and values of every layer are kept in `kept` (prefill).
    """

    def __init__(
        self,
        forest: Forest,
        device: torch.device,
        *,
        trunk: Sequence[KeysValues] = (),
        store: bool = False,
    ) -> None:
        self.trunk, self.store = trunk, store
        self.kept: list[KeysValues] = []
        self.positions = torch.tensor([forest.positions], device=device)
        self.trunk_length = trunk[0][0].shape[2] if trunk else 0
        self.blocks = blocks(forest.segments)
        self.lengths = [block.span[1] - block.span[0] for block in self.blocks]
        ends = {0, *(place for block in self.blocks for span in (block.span, *block.above) for place in span)}
        places = sorted(ends)
        self.pieces = [end - start for start, end in pairwise(places)]
        number = {place: i for i, place in enumerate(places)}
        # the pieces of the keys that each block sees: those above, and its own
        self.seen = [
            [i for start, end in (*block.above, block.span) for i in range(number[start], number[end])]
            for block in self.blocks
        ]
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        if self.store:
            self.kept.append((k, v))
        # split, not slices: the backward of a slice fills a whole tensor with zeros
        queries, keys, values = q.split(self.lengths, dim=2), k.split(self.pieces, dim=2), v.split(self.pieces, dim=2)
        trunk = [self.trunk[layer]] if self.trunk else []
        outputs = []
        for i, seen in enumerate(self.seen):
            seen_keys = [*(pair[0] for pair in trunk), *(keys[j] for j in seen)]
            seen_values = [*(pair[1] for pair in trunk), *(values[j] for j in seen)]
            outputs.append(_block_attention(queries[i], seen_keys, seen_values, self._mask(i, window), scale))
        return torch.cat(outputs, dim=2)

    def _mask(self, i: int, window: int | None) -> Tensor | None:
        """True where a token of block i sees a key; None when plain causal attention is the same."""
        if (i, window) not in self._masks:
            self._masks[i, window] = self._make_mask(self.blocks[i], window)
        return self._masks[i, window]

    def _make_mask(self, block: Block, window: int | None) -> Tensor | None:
        positions = self.positions[0]
        start, end = block.span
        alone = len(block.segments) == 1 and not block.above and not self.trunk
        if alone and (window is None or end - start <= window):
            return None
        own = torch.zeros(end - start, end - start, dtype=torch.bool)
        for segment in block.segments:
            rows = slice(segment.start - start, segment.end - start)
            own[rows, rows] = True
            for first, last in segment.ancestors[len(block.above) :]:
                own[rows, first - start : last - start] = True
        first = int(positions.min()) - self.trunk_length
        before = [
            torch.arange(first, first + self.trunk_length, device=positions.device),
            *(positions[above_start:above_end] for above_start, above_end in block.above),
        ]
        seen = torch.cat([*before, positions[start:end]])
        distance = positions[start:end, None] - seen[None, :]
        mask = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        mask[:, len(seen) - len(own) :] &= own.to(mask.device)
        return mask


def _block_attention(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    k = torch.cat(list(keys), dim=2) if len(keys) > 1 else keys[0]
    v = torch.cat(list(values), dim=2) if len(values) > 1 else values[0]
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
