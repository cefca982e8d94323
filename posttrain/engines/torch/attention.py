"""Attention for laid-out forests and for decoding, behind the attention registry of transformers.

A Hugging Face model calls `attend` with queries, keys and values of one layer; the `layout` given to its forward
call says which keys each token sees.  Two layouts: a `ForestLayout` (training, scoring, prefill) and a decoding
step (sampler.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from posttrain.engines.torch.flex_attention import FlexAttention
from posttrain.engines.torch.forest import Forest
from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.masked_attention import MaskedAttention
from posttrain.engines.torch.native.attention import Source
from posttrain.engines.torch.native.decoder import Place
from posttrain.engines.torch.native_attention import NativeAttention, parts_of
from posttrain.engines.torch.sight import Sight
from posttrain.types import UserError

NAME = "posttrain"
"""Our name in the registry: load a model, then `model.set_attn_implementation(NAME)`."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [1, key-value heads, tokens, head size]."""


class Layout(Protocol):
    """Which keys each token of a forward call sees."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
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
    if layout is None or (s_aux is not None and s_aux.shape != q.shape[1:2]):
        what = "without saying who sees whom" if layout is None else "with other sinks than one for each head"
        raise UserError(
            f"{type(module).__name__} attends {what}, which this engine does not compute",
            remedy="choose another model, for example a Llama, Qwen, Mistral or SmolLM",
        )
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    manner = Manner(scale, sliding_window, softcap, s_aux)
    return layout.attend(module.layer_idx, q, k, v, manner).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


COMPUTED: Mapping[str, Callable[[Sight], Callable[..., Tensor]]] = {"cpu": NativeAttention, "cuda": FlexAttention}
"""By the kind of device (ROCm is `cuda` to torch); elsewhere MaskedAttention."""


class ForestLayout:
    """A forest, its tokens preceded by an optional trunk of cached keys and values that all of them see.

    With `store`, the keys and values of every layer are kept in `kept` (prefill).  With `wanted`, which are in order,
    the hidden states of those tokens alone are asked for (lean_layers.py).
    """

    def __init__(
        self,
        forest: Forest,
        device: torch.device,
        *,
        trunk: Sequence[KeysValues] = (),
        store: bool = False,
        wanted: Sequence[int] | None = None,
    ) -> None:
        self.trunk, self.store, self.wanted = trunk, store, wanted
        self.kept: list[KeysValues] = []
        self.positions = torch.tensor([forest.positions], device=device)
        self._sight = Sight(forest, trunk[0][0].shape[2] if trunk else 0, device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """See Layout."""
        if self.store:
            # copies: they may be views of queries, keys and values side by side, which need not stay
            whole = torch.contiguous_format
            self.kept.append((k.clone(memory_format=whole), v.clone(memory_format=whole)))
        if self.trunk:
            keys, values = self.trunk[layer]
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        return self._computed(q, k, v, manner)

    @cached_property
    def _computed(self) -> Callable[..., Tensor]:
        return COMPUTED.get(self.positions.device.type, MaskedAttention)(self._sight)

    def places(self, layers: int, heads: int, size: int) -> list[Place]:
        """See native_decoder.Placed."""
        own, of_trunk = parts_of(self._sight)
        tokens = self.positions.shape[1]
        at, shape = torch.arange(tokens), (1, heads, tokens, size)
        kept = [(torch.empty(shape), torch.empty(shape)) for _ in range(layers if self.store else 1)]
        self.kept = kept if self.store else []
        sources = [[Source(*keys_values, own)] for keys_values in kept] * (1 if self.store else layers)
        if self.trunk:
            sources = [[*some, Source(*more, of_trunk)] for some, more in zip(sources, self.trunk, strict=True)]
        return [Place(some[0].keys, some[0].values, at, some) for some in sources]
