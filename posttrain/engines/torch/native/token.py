"""One token through the layers of a decoder: token.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor

from posttrain.engines.torch.native.attention import Parts, ToldManner, ToldSource, ToldStrides, told_source
from posttrain.engines.torch.native.library import library
from posttrain.engines.torch.native.products import Int8Weight

KeysValues = tuple[Tensor, Tensor]
Shared = tuple[Sequence[KeysValues], Parts]
"""Of every layer, keys and values that others see, too, and the parts in which they are attended to."""

LINEARS = 4
"""Of a layer: queries, keys and values; what attention gives; gate and up; down."""


class ToldLinear(ctypes.Structure):
    """A frozen weight in fp32, by column, or in 8 bits."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("scales", "sums", "bias")),
        *((name, ctypes.c_int64) for name in ("size_in", "size_out")),
    )

    @classmethod
    def of(cls, weight: Tensor | Int8Weight, bias: Tensor | None) -> ToldLinear:
        """The tensors must live as long as it does."""
        add = None if bias is None else bias.data_ptr()
        if isinstance(weight, Int8Weight):
            (out, size), scales, sums = weight.weight.shape, weight.scales.data_ptr(), weight.sums.data_ptr()
            return cls(weight.weight.data_ptr(), 0, scales, sums, add, size, out)
        return cls(weight.data_ptr(), weight.stride(1), None, None, add, weight.shape[1], weight.shape[0])


class ToldDelta(ctypes.Structure):
    """scale * B (A x), with A [rank, in] and B [columns, rank], is added to the outputs from `first` on."""

    @classmethod
    def of(cls, a: Tensor, b: Tensor, first: int, scale: float) -> ToldDelta:
        """The tensors must live as long as it is used.  Raises RuntimeError for ones that do not lie by row."""
        if not (a.is_contiguous() and b.is_contiguous()):
            raise RuntimeError("an adapter's tensors must lie by row")
        return cls(a.data_ptr(), b.data_ptr(), len(a), first, len(b), scale)

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("a", "b")),
        *((name, ctypes.c_int64) for name in ("rank", "first", "columns")),
        ("scale", ctypes.c_float),
    )


class _Deltas(ctypes.Structure):
    _fields_ = (("each", ctypes.c_void_p), ("count", ctypes.c_int64))


class ToldLayer(ctypes.Structure):
    """Its linear layers, the scales and epsilons of its two norms, and in what manner it attends."""

    _fields_ = (
        ("linears", ToldLinear * LINEARS),
        *((name, ctypes.c_void_p) for name in ("before", "between")),
        *((name, ctypes.c_float) for name in ("epsilon_before", "epsilon_between")),
        ("manner", ToldManner),
    )


class _Place(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        ("head", ctypes.c_int64),
        ("sources", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    )


class Deltas:
    """What an adapter adds: of each layer, of each of its linear layers."""

    def __init__(self, layers: Sequence[Sequence[Sequence[ToldDelta]]]) -> None:
        self._each = [(ToldDelta * len(deltas))(*deltas) for layer in layers for deltas in layer]
        told = [_Deltas(ctypes.addressof(each), len(each)) for each in self._each]
        self.table = (_Deltas * len(told))(*told)


class Places:
    """Where the keys and values of a token go, in every layer, and what it sees there."""

    def __init__(self, slots: Sequence[KeysValues], row: int, at: int, own: Parts, shared: Sequence[Shared]) -> None:
        """In every layer, a token that goes to place `at` of a row of the slots, keys and values [slots, key-value
        heads, capacity, size], and sees what parts say of that row and of keys and values that are shared."""
        parts = own.table.data_ptr()
        self._kept = [own, *shared]  # C has their addresses
        self._sources, places = [], []
        for layer, (keys, values) in enumerate(slots):
            _, heads, capacity, size = keys.shape
            lie, apart = ToldStrides(size, capacity * size), keys.itemsize * size
            first = row * heads * capacity * apart
            k, v = keys.data_ptr() + first, values.data_ptr() + first
            seen = [ToldSource(k, v, lie, lie, parts, own.count)]
            seen += [told_source(*layers[layer], of) for layers, of in shared]
            self._sources.append((ToldSource * len(seen))(*seen))
            sources = ctypes.addressof(self._sources[-1])
            places.append(_Place(k + at * apart, v + at * apart, capacity * size, sources, len(seen)))
        self.table = (_Place * len(places))(*places)


def through_layers(
    x: Tensor,
    layers: ctypes.Array[ToldLayer],
    places: Places,
    deltas: Deltas | None,
    position: Tensor,
    cos: Tensor,
    sin: Tensor,
) -> None:
    """Takes x [hidden] through all layers, in its place, turned by cos and sin [size] of its position [1] in int64."""
    added = None if deltas is None else deltas.table
    turns = position.data_ptr(), cos.data_ptr(), sin.data_ptr()
    library().token(layers, len(layers), places.table, added, *turns, x.data_ptr())
