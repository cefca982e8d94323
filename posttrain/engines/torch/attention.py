"""Attention for laid-out forests and for decoding, behind the attention registry of transformers.

A Hugging Face model calls `attend` with queries, keys and values of one layer; the `layout` given to its forward
call says which keys each token sees.  Two layouts: a `ForestLayout` (training, scoring, prefill) and a decoding
step (sampler.py).  Sliding windows are honoured; soft caps and attention sinks are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from posttrain.engines.torch.forest import Forest
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
        self.forest, self.trunk, self.store = forest, trunk, store
        self.kept: list[KeysValues] = []
        self.positions = torch.tensor([forest.positions], device=device)
        self.trunk_length = trunk[0][0].shape[2] if trunk else 0
        self.lengths = [segment.end - segment.start for segment in forest.segments]
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        if self.store:
            self.kept.append((k, v))
        # split, not slices: the backward of a slice fills a whole tensor with zeros
        queries, keys, values = (x.split(self.lengths, dim=2) for x in (q, k, v))
        where = {segment.start: i for i, segment in enumerate(self.forest.segments)}
        pieces = []
        for i, segment in enumerate(self.forest.segments):
            above = [where[start] for start, _ in segment.ancestors]
            trunk = [self.trunk[layer]] if self.trunk else []
            seen_keys = [pair[0] for pair in trunk] + [keys[j] for j in above] + [keys[i]]
            seen_values = [pair[1] for pair in trunk] + [values[j] for j in above] + [values[i]]
            pieces.append(_segment_attention(queries[i], seen_keys, seen_values, self._mask(i, window), scale))
        return torch.cat(pieces, dim=2)

    def _mask(self, i: int, window: int | None) -> Tensor | None:
        """True where a token of segment i sees a key; None when plain causal attention is the same."""
        if (i, window) not in self._masks:
            segment, positions = self.forest.segments[i], self.positions[0]
            own = positions[segment.start : segment.end]
            spans = [positions[start:end] for start, end in segment.ancestors]
            first = int(positions.min()) - self.trunk_length if self.trunk else 0
            trunk = [torch.arange(first, first + self.trunk_length, device=positions.device)]
            seen = torch.cat([*trunk, *spans, own])
            distance = own[:, None] - seen[None, :]
            mask = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
            plain = len(seen) == len(own) and (window is None or len(own) <= window)
            self._masks[i, window] = None if plain else mask
        return self._masks[i, window]


def _segment_attention(
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
