"""Tokens through the layers of a decoder: decoder.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.engines.torch.native.attention import Source, ToldManner, ToldSource, told_sources
from posttrain.engines.torch.native.library import library
from posttrain.engines.torch.native.products import Int8Weight, PairedWeight

LINEARS = 4
"""Of a layer: queries, keys and values; what attention gives; gate and up; down."""


class ToldLinear(ctypes.Structure):
    """A frozen weight in fp32, by column, or in pairs of bfloat16, or in 8 bits."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("stride", "pairs")),
        *((name, ctypes.c_void_p) for name in ("scales", "sums", "bias")),
        *((name, ctypes.c_int64) for name in ("size_in", "size_out")),
    )

    @classmethod
    def of(cls, weight: Tensor | PairedWeight | Int8Weight, bias: Tensor | None) -> ToldLinear:
        """The tensors must live as long as it does."""
        add = None if bias is None else bias.data_ptr()
        if isinstance(weight, Int8Weight):
            (out, size), scales, sums = weight.weight.shape, weight.scales.data_ptr(), weight.sums.data_ptr()
            return cls(weight.weight.data_ptr(), 0, 0, scales, sums, add, size, out)
        if isinstance(weight, PairedWeight):
            pairs = weight.weight
            return cls(pairs.data_ptr(), pairs.shape[1], 1, None, None, add, weight.size, weight.out)
        return cls(weight.data_ptr(), weight.stride(1), 0, None, None, add, weight.shape[1], weight.shape[0])


class ToldNorm(ctypes.Structure):
    """Its scale and epsilon; without a scale, there is no norm."""

    _fields_ = (("scale", ctypes.c_void_p), ("epsilon", ctypes.c_float))

    @classmethod
    def of(cls, scale: Tensor, epsilon: float) -> ToldNorm:
        """The scale must live as long as it does."""
        return cls(scale.data_ptr(), epsilon)


class ToldDelta(ctypes.Structure):
    """scale * B (A x), with A [rank, in] and B [columns, rank], is added to the outputs from `first` on."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b")),
        *((name, ctypes.c_int64) for name in ("rank", "first", "columns")),
        ("scale", ctypes.c_float),
    )

    @classmethod
    def of(cls, a: Tensor, b: Tensor, first: int, scale: float) -> ToldDelta:
        """The tensors must live as long as it is used.  Raises RuntimeError for ones that do not lie by row."""
        if not (a.is_contiguous() and b.is_contiguous()):
            raise RuntimeError("an adapter's tensors must lie by row")
        return cls(a.data_ptr(), b.data_ptr(), len(a), first, len(b), scale)


class _Deltas(ctypes.Structure):
    _fields_ = (("each", ctypes.c_void_p), ("count", ctypes.c_int64))


class _Acting(ctypes.Structure):
    _fields_ = (("added", ctypes.c_void_p), ("start", ctypes.c_int64), ("end", ctypes.c_int64))


class ToldLayer(ctypes.Structure):
    """Its linear layers, its norms, those of queries and keys included, and in what manner it attends."""

    _fields_ = (
        ("linears", ToldLinear * LINEARS),
        *((name, ToldNorm) for name in ("before", "between", "queries", "keys")),
        ("manner", ToldManner),
    )


class _Kept(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("head", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("at", "sources")),
        ("count", ctypes.c_int64),
    )


class Deltas:
    """What an adapter adds: of each layer, of each of its linear layers."""

    def __init__(self, layers: Sequence[Sequence[Sequence[ToldDelta]]]) -> None:
        self._each = [(ToldDelta * len(deltas))(*deltas) for layer in layers for deltas in layer]
        told = [_Deltas(ctypes.addressof(each), len(each)) for each in self._each]
        self._table = (_Deltas * len(told))(*told)

    def of_layer(self, number: int) -> _Deltas:
        """Those of a layer and of all above it, in memory."""
        return _Deltas.from_buffer(self._table, number * LINEARS * ctypes.sizeof(_Deltas))


@dataclass(frozen=True)
class Place:
    """Of one layer: where the keys and values of tokens go, and what these see.

    Token i goes to place `at[i]` (in int64, [tokens]) of keys and values [1, key-value heads, places, size].
    """

    keys: Tensor
    values: Tensor
    at: Tensor
    sources: Sequence[Source]


def through_layers(
    x: Tensor,
    layers: ctypes.Array[ToldLayer],
    places: Sequence[Place],
    acting: Sequence[tuple[Deltas, int, int]],
    positions: Tensor,
    turns: tuple[Tensor, Tensor],
    wanted: Sequence[int],
    *,
    first: int = 0,
    apart: bool = False,
) -> Tensor:
    """Hidden states [tokens, hidden] after as many layers as there are places, from the `first` on, of the `wanted`
    tokens alone, which are in order; those given are overwritten.

    Adapters act on their spans of tokens.  Turned by cos and sin [tokens, size] of their positions, as many in int64.
    `apart`: the bits of none depend on the others, but for what it attends to.  Raises MemoryError.
    """
    sources = [told_sources(place.sources) for place in places]
    kept = (_Kept * len(places))(*map(_told_place, places, sources))
    who = (_Acting * len(acting))(*(_Acting(ctypes.addressof(each.of_layer(first)), *span) for each, *span in acting))
    begin = ctypes.byref(layers, first * ctypes.sizeof(ToldLayer))
    cos, sin = (part.contiguous() for part in turns)
    asked = torch.tensor(wanted, dtype=torch.int64)
    given = positions.data_ptr(), cos.data_ptr(), sin.data_ptr(), asked.data_ptr(), len(asked)
    if library().through_layers(begin, len(places), kept, who, len(acting), *given, len(x), apart, x.data_ptr()):
        raise MemoryError(f"no room for {len(x)} tokens between the layers")
    return x[: len(asked)]


def _told_place(place: Place, sources: ctypes.Array[ToldSource]) -> _Kept:
    """As C has it, with its sources as C has them."""
    keys, values = place.keys, place.values
    where = keys.data_ptr(), values.data_ptr(), keys.stride(1), place.at.data_ptr()
    return _Kept(*where, ctypes.addressof(sources), len(sources))
