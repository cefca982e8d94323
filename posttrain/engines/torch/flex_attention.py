"""Attention of a forest on a GPU: one call with a mask by blocks, those without a single pair of which are skipped."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.sight import Sight


@functools.cache
def compiled() -> Any:
    """As one kernel, for any number of tokens; but with a cap that is a constant: as an input, torch 2.13 fails."""
    constant = torch._dynamo.config.patch(specialize_float=True)
    return constant(torch.compile(flex_attention, dynamic=True))


class FlexAttention:
    """Attention of one layout.  See torch.nn.attention.flex_attention."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self._masks: dict[int | None, BlockMask] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """q [1, heads, tokens, size], k and v [1, key-value heads, trunk and tokens, size] -> like q."""
        window = manner.window
        if window not in self._masks:
            self._masks[window] = create_block_mask(
                lambda _batch, _head, query, key: self.sight(query, key, window),
                None, None, q.shape[2], k.shape[2], device=str(q.device),
            )  # fmt: skip
        grouped = q.shape[1] != k.shape[1]
        # elsewhere as plain operations, with all scores in memory
        kernel = compiled() if q.device.type == "cuda" else flex_attention
        out, more = kernel(
            q, k, v, block_mask=self._masks[window], scale=manner.scale, enable_gqa=grouped,
            score_mod=None if manner.cap is None else lambda score, *_: manner.bend(score),
            return_aux=AuxRequest(lse=manner.sinks is not None),
        )  # fmt: skip
        return out if manner.sinks is None else manner.drain(out, more.lse)[0]
