"""Attention of a forest with a plain mask: where neither the CPU's kernels nor FlexAttention's can be had (MPS)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.sight import Sight


class MaskedAttention:
    """Attention of one layout, in one call with a mask [tokens, trunk and tokens]."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self._masks: dict[int | None, Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """q [1, heads, tokens, size], k and v [1, key-value heads, trunk and tokens, size] -> like q."""
        window = manner.window
        if window not in self._masks:
            queries, keys = (torch.arange(each.shape[2], device=q.device) for each in (q, k))
            self._masks[window] = self.sight(queries[:, None], keys[None], window)
        sharing = q.shape[1] // k.shape[1]
        k, v = (each.repeat_interleave(sharing, dim=1) for each in (k, v))
        if manner.cap is None and manner.sinks is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=self._masks[window], scale=manner.scale)
        scores = manner.bend(q @ k.transpose(2, 3) * manner.scale).masked_fill(~self._masks[window], float("-inf"))
        return manner.drain(scores.softmax(dim=3) @ v, scores.float().logsumexp(dim=3))[0]
