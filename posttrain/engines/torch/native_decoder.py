"""Tokens through all layers of a network in one call of C (native/decoder.c), when nothing is learnt: prompts that are
read, and steps of decoding."""

from __future__ import annotations

import ctypes
import math
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from posttrain.engines.torch import onednn
from posttrain.engines.torch.adapters import AdaptedLinear, Adapter, AdapterBank, Precision
from posttrain.engines.torch.attention import KeysValues
from posttrain.engines.torch.int8 import FEW_ROWS_NATIVELY, Int8Product
from posttrain.engines.torch.llama_layers import LlamaLayer, llama_layers
from posttrain.engines.torch.native.attention import MOST_SIZE, told_manner
from posttrain.engines.torch.native.decoder import (
    Deltas,
    Place,
    ToldDelta,
    ToldLayer,
    ToldLinear,
    ToldNorm,
    through_layers,
)
from posttrain.engines.torch.native.products import Int8Weight, PairedWeight
from posttrain.engines.torch.norms import Norm
from posttrain.engines.torch.rounded import RoundedProduct

MOST_ADAPTERS = 64
"""Whose places in memory are kept."""

MOST_BESIDE_MKL = 64
"""Tokens in fp32 where MKL has all its speed, as on Intel's processors: there, many rows of ours were not measured."""

FREE_TOKENS = 8
"""Except in 8 bits, a step of two to so many tokens takes about as long (and of one alone three quarters of that)."""

Span = tuple[str, int, int]
"""(Adapter, tokens from, up to.)"""


class Placed(Protocol):
    """A layout (see attention.Layout) that says where keys and values lie."""

    positions: Tensor

    def places(self, layers: int, heads: int, size: int) -> list[Place]:
        """Of so many layers, all of which have so many key-value heads of that size."""
        ...


class NativeDecoder:
    """The layers of a network, where all are of a kind that C computes."""

    def __init__(self, body: Any, layers: Sequence[LlamaLayer], bank: AdapterBank, *, apart: bool) -> None:
        self.body, self.layers, self.bank, self.apart = body, layers, bank, apart
        self._told: dict[Precision, tuple[ctypes.Array[ToldLayer], list[Any]]] = {}
        self._deltas: OrderedDict[int, Deltas] = OrderedDict()
        self._lock = threading.Lock()  # several calls may go side by side

    @classmethod
    def of(cls, body: Any, bank: AdapterBank, *, apart: bool = False) -> NativeDecoder | None:
        """None when a layer is none that C computes.  `apart`: what adapters add to a token shall have the same bits
        whatever others there are; all else has, but in 8 bits and for what it attends to."""
        layers = llama_layers(body)
        alike = len({(layer.attention.size, layer.heads[1]) for layer in layers}) == 1
        return cls(body, layers, bank, apart=apart) if alike and all(map(_computed, layers)) else None

    def hidden(
        self,
        tokens: Sequence[int],
        layout: Placed,
        spans: Sequence[Span],
        wanted: Sequence[int],
        entering: tuple[int, Tensor] | None = None,
    ) -> Tensor | None:
        """The hidden states of the `wanted` tokens, maybe from a layer on, given what enters it [tokens, hidden], which
        is overwritten; None where C does not compute them now."""
        order = sorted({*wanted})
        depth, x = entering or (0, None)
        x = self._through(range(depth, len(self.layers)), x, tokens, layout, spans, order)
        if x is None:
            return None
        x = self.body.norm(x)
        return x if order == [*wanted] else x[torch.tensor([bisect_left(order, token) for token in wanted])]

    def nothing_kept(self) -> list[KeysValues]:
        """Keys and values of no token, in every layer."""
        (_, heads), size = self.layers[0].heads, self.layers[0].attention.size
        return [(torch.empty(1, heads, 0, size), torch.empty(1, heads, 0, size)) for _ in self.layers]

    def below(self, depth: int, tokens: Sequence[int], layout: Placed) -> Tensor | None:
        """What enters layer `depth` [tokens, hidden], of the base alone; None as above."""
        return self._through(range(depth), None, tokens, layout, (), range(len(tokens)))

    def _through(
        self,
        numbers: range,
        x: Tensor | None,
        tokens: Sequence[int],
        layout: Placed,
        spans: Sequence[Span],
        wanted: Sequence[int],
    ) -> Tensor | None:
        """x [tokens, hidden], or the tokens' own embeddings, through layers of these numbers; that of `wanted` ones."""
        layers = self._layers(len(tokens))
        if layers is None:
            return None
        (_, heads), size = self.layers[0].heads, self.layers[0].attention.size
        if x is None:
            x = self.body.embed_tokens(torch.tensor([tokens]))[0]
        cos, sin = self.body.rotary_emb(x, position_ids=layout.positions)
        if cos.shape[2] != size or x.dtype != torch.float32:
            return None
        places = layout.places(len(numbers), heads, size)
        acting = [(self._deltas_of(self.bank.get(name)), start, end) for name, start, end in spans if name]
        turns = cos[0], sin[0]
        return through_layers(
            x, layers, places, acting, layout.positions, turns, wanted, first=numbers.start, apart=self.apart
        )

    def _layers(self, tokens: int) -> ctypes.Array[ToldLayer] | None:
        """As C has them, in the precision of now, for so many tokens."""
        precision = self.bank.precision
        if tokens > self._most_tokens(precision):
            return None
        with self._lock:
            return self._find_told(precision) or None

    def _most_tokens(self, precision: Precision) -> float:
        """More go layer by layer."""
        if precision == "int8":
            return FEW_ROWS_NATIVELY
        by_mkl = precision == "float32" and not onednn.suits(self.layers[0].linears[0].base.weight)
        return MOST_BESIDE_MKL if by_mkl else math.inf

    def _find_told(self, precision: Precision) -> ctypes.Array[ToldLayer]:
        if precision not in self._told:
            weights = [[_weight(linear, precision) for linear in layer.linears] for layer in self.layers]
            told = []
            if all(weight is not None for each in weights for weight in each):
                told = [_told(layer, each) for layer, each in zip(self.layers, weights, strict=True)]
            self._told[precision] = (ToldLayer * len(told))(*told), weights
        return self._told[precision][0]

    def _deltas_of(self, adapter: Adapter) -> Deltas:
        """Where its tensors are, which stay where they are while it is not trained; they are not kept by it, so that an
        adapter that is dropped leaves nothing.  (Its stamp never comes again.)"""
        with self._lock:
            found = self._deltas.pop(adapter.stamp, None)
            if found is None:
                told = [[_told_deltas(linear, adapter) for linear in layer.linears] for layer in self.layers]
                found = Deltas(told)
            self._deltas[adapter.stamp] = found  # the last used is the last to go
            if len(self._deltas) > MOST_ADAPTERS:
                self._deltas.popitem(last=False)
        return found


def _computed(layer: LlamaLayer) -> bool:
    """Whether C computes it."""
    manner, size, activation = layer.attention.manner, layer.attention.size, layer.wide.module.act_fn
    plain = manner.cap is None and manner.sinks is None and isinstance(activation, nn.SiLU | SiLUActivation)
    by_head = [isinstance(norm, Norm) and len(norm.scale) == size for norm in layer.norms]
    return plain and size % 16 == 0 and size <= MOST_SIZE and len(by_head) in (0, 2) and all(by_head)


def _weight(linear: AdaptedLinear, precision: Precision) -> Tensor | PairedWeight | Int8Weight | None:
    """A weight as C multiplies with it, if it does."""
    weight, product = linear.base.weight, linear.frozen(torch.float32)
    if isinstance(product, Int8Product | RoundedProduct):
        return product.native
    by_column = weight.dtype == torch.float32 and weight.stride(0) == 1
    return weight if precision == "float32" and by_column else None


def _told(layer: LlamaLayer, weights: Sequence[Any]) -> ToldLayer:
    linears = [ToldLinear.of(weight, linear.base.bias) for weight, linear in zip(weights, layer.linears, strict=True)]
    norms = [ToldNorm.of(norm.scale, norm.epsilon) for norm in (layer.before, layer.between, *layer.norms)]
    norms += [ToldNorm()] * (4 - len(norms))
    manner = told_manner(layer.attention.manner, *layer.heads, layer.attention.size)
    return ToldLayer((ToldLinear * len(linears))(*linears), *norms, manner)


def _told_deltas(linear: AdaptedLinear, adapter: Adapter) -> list[ToldDelta]:
    return [ToldDelta.of(pair.a, pair.b, pair.columns.start or 0, adapter.scale) for pair in linear.pairs(adapter)]
