"""A decoding step of a single token, through all layers in one call of C (native/token.c)."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from posttrain.engines.torch.adapters import AdaptedLinear, Adapter, AdapterBank, Precision
from posttrain.engines.torch.blocks import Attention, Gated
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.int8 import Int8Product
from posttrain.engines.torch.native.attention import told_manner
from posttrain.engines.torch.native.products import Int8Weight
from posttrain.engines.torch.native.token import Deltas, ToldDelta, ToldLayer, ToldLinear, through_layers
from posttrain.engines.torch.norms import Norm

MOST_ADAPTERS = 64
"""Whose places in memory are kept."""


@dataclass(frozen=True)
class Layer:
    """A decoder's layer: x + attention(norm(x)), and of that, y + wide(norm(y))."""

    before: Norm
    attention: Attention
    between: Norm
    wide: Gated

    @property
    def linears(self) -> list[AdaptedLinear]:
        """In the order in which they act."""
        return [self.attention.joined, self.attention.module.o_proj, self.wide.joined, self.wide.module.down_proj]


class TokenPath:
    """The layers of a network, for one token at a time."""

    def __init__(self, body: Any, layers: Sequence[Layer], bank: AdapterBank) -> None:
        self.body, self.layers, self.bank = body, layers, bank
        self._told: dict[Precision, tuple[ctypes.Array[ToldLayer], list[Any]]] = {}
        self._deltas: OrderedDict[int, Deltas] = OrderedDict()
        self._lock = threading.Lock()  # several rows may go side by side

    @classmethod
    def of(cls, body: Any, bank: AdapterBank) -> TokenPath | None:
        """None when a layer is none that C computes."""
        layers = list(_layers(body))
        alike = len({layer.attention.size for layer in layers}) == 1
        return cls(body, layers, bank) if alike and len(layers) == len(body.layers) else None

    def hidden(self, token: int, layout: DecodingLayout, adapter: str) -> Tensor | None:
        """The hidden state [1, hidden] of a step's only token; None where C does not compute it now."""
        layers = self._layers()
        if layers is None:
            return None
        x = self.body.embed_tokens(torch.tensor([[token]]))
        cos, sin = self.body.rotary_emb(x, position_ids=layout.positions)
        if cos.shape[2] != self.layers[0].attention.size or x.dtype != torch.float32:
            return None
        deltas = self._deltas_of(self.bank.get(adapter)) if adapter else None
        through_layers(x, layers, layout.places(), deltas, layout.positions, cos.contiguous(), sin.contiguous())
        return self.body.norm(x)[0]

    def _layers(self) -> ctypes.Array[ToldLayer] | None:
        """As C has them, in the precision of now."""
        precision = self.bank.precision
        with self._lock:
            return self._find_told(precision) or None

    def _find_told(self, precision: Precision) -> ctypes.Array[ToldLayer]:
        if precision not in self._told:
            weights = [[_weight(linear, precision) for linear in layer.linears] for layer in self.layers]
            told = []
            if all(weight is not None for each in weights for weight in each):
                told = [_told(layer, each) for layer, each in zip(self.layers, weights, strict=True)]
            self._told[precision] = (ToldLayer * len(told))(*told), weights
        return self._told[precision][0]

    def _deltas_of(self, adapter: Adapter) -> Deltas:
        """Where its tensors are, which stay where they are while it is not trained."""
        with self._lock:
            found = self._deltas.pop(adapter.stamp, None)
            if found is None:
                found = Deltas([[_told_deltas(linear, adapter) for linear in layer.linears] for layer in self.layers])
            self._deltas[adapter.stamp] = found  # the last used is the last to go
            if len(self._deltas) > MOST_ADAPTERS:
                self._deltas.popitem(last=False)
        return found


def _layers(body: Any) -> Iterator[Layer]:
    """Those of a network that are as they must be; what is between them is seen when they are tried."""
    for module in getattr(body, "layers", []):
        names = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
        before, attention, between, wide = (getattr(getattr(module, name, None), "forward", None) for name in names)
        if not (isinstance(before, Norm) and isinstance(between, Norm)):
            return
        if not (isinstance(attention, Attention) and isinstance(wide, Gated)):
            return
        manner, size, activation = attention.manner, attention.size, wide.module.act_fn
        plain = manner.cap is None and manner.sinks is None and not any(attention.norms)
        if plain and size % 16 == 0 and size <= 256 and isinstance(activation, nn.SiLU | SiLUActivation):
            yield Layer(before, attention, between, wide)


def _weight(linear: AdaptedLinear, precision: Precision) -> Tensor | Int8Weight | None:
    """A weight as C multiplies with it, if it does."""
    weight = linear.base.weight
    if precision == "int8":
        product = linear.frozen(torch.float32)
        return product.native if isinstance(product, Int8Product) else None
    by_column = weight.dtype == torch.float32 and weight.stride(0) == 1
    return weight if precision == "float32" and by_column else None


def _told(layer: Layer, weights: Sequence[Any]) -> ToldLayer:
    attention, linears = layer.attention, layer.linears
    told = [ToldLinear.of(weight, linear.base.bias) for weight, linear in zip(weights, linears, strict=True)]
    heads, key_value_heads, _ = (width // attention.size for width in attention.widths)
    return ToldLayer(
        (ToldLinear * len(told))(*told),
        layer.before.scale.data_ptr(),
        layer.between.scale.data_ptr(),
        layer.before.epsilon,
        layer.between.epsilon,
        told_manner(attention.manner, heads, key_value_heads, attention.size),
    )


def _told_deltas(linear: AdaptedLinear, adapter: Adapter) -> list[ToldDelta]:
    return [ToldDelta.of(pair.a, pair.b, pair.columns.start or 0, adapter.scale) for pair in linear.pairs(adapter)]
