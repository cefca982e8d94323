"""Products with frozen weights: products.c and int8.c."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.engines.torch.heap import huge_pages
from posttrain.engines.torch.native.layers import by_row
from posttrain.engines.torch.native.library import has_pairs, library
from posttrain.engines.torch.weights import stored_columns

BYTES = 64
"""Weights in 8 bits are read so many at a time."""

PAIR = 4
"""Bytes of two numbers of bfloat16."""

MOST_IN = 32768
"""Weights of a row; sums of more might not fit."""


@dataclass(frozen=True)
class Addition:
    """What is added to a part of a product: narrow [those rows, rank] @ wide [those columns, rank].T."""

    rows: slice
    columns: slice
    narrow: Tensor
    wide: Tensor


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, additions: Sequence[Addition] = ()) -> Tensor:
    """x [rows, in] @ weight [out, in].T + bias [out], the weight lying by row or by column; and the additions."""
    y = x.new_empty(len(x), len(weight))
    start = (None, 0) if bias is None else (bias.data_ptr(), 0)
    _multiply(x, weight, start, y, additions)
    return y


def add_product(y: Tensor, x: Tensor, weight: Tensor) -> None:
    """y [rows, out] += x [rows, in] @ weight [out, in].T, in its place; its rows may be parts of longer ones."""
    if y.stride(1) != 1:
        raise RuntimeError("what is added to must lie by row")
    _multiply(x, weight, (y.data_ptr(), y.stride(0)), y)


def _multiply(
    x: Tensor, weight: Tensor, start: tuple[int | None, int], y: Tensor, additions: Sequence[Addition] = ()
) -> None:
    if 1 not in weight.stride():
        weight = weight.contiguous()
    given = x.data_ptr(), x.stride(0), x.stride(1), len(x), weight.shape[1], weight.data_ptr(), *_lying(weight)
    added = _told(additions, y)
    library().multiply(*given, *start, y.data_ptr(), y.stride(0), len(weight), added.buffer_info()[0], len(additions))


def _lying(weight: Tensor) -> tuple[int, bool]:
    """How far its rows (or columns) lie apart, and whether it is `turned`: by row."""
    turned = weight.stride(1) == 1
    return weight.stride(0 if turned else 1), turned


def _told(additions: Sequence[Addition], y: Tensor) -> array[int]:
    """As products.h has them."""
    numbers = array("q")
    for each in additions:
        top, bottom, _ = each.rows.indices(len(y))
        first, end, _ = each.columns.indices(y.shape[1])
        narrow, wide = each.narrow, each.wide
        if narrow.shape != (bottom - top, wide.shape[1]) or len(wide) != end - first:
            raise RuntimeError(f"{[*narrow.shape]} and {[*wide.shape]} do not make {bottom - top} by {end - first}")
        if narrow.stride(1) != 1 or 1 not in wide.stride() or not narrow.dtype == wide.dtype == y.dtype:
            raise RuntimeError("what is added must lie by row and be of the product's type")
        at = narrow.data_ptr(), narrow.stride(0), wide.shape[1], wide.data_ptr()
        numbers.extend((top, bottom, first, end, *at, *_lying(wide)))
    return numbers


@dataclass(frozen=True)
class PairedWeight:
    """A weight [out, in] rounded to bfloat16: numbers that are multiplied with the same two of x lie side by side, and
    these pairs by column [half of in, out and some to spare, 2]."""

    weight: Tensor
    out: int
    size: int

    @classmethod
    def suiting(cls, weight: Tensor) -> PairedWeight | None:
        """None where the processor does not suit, or multiplies such numbers faster otherwise."""
        if not has_pairs():
            return None
        (out, size), pairs = weight.shape, -(-weight.shape[1] // 2)
        columns = stored_columns(out, PAIR)
        laid = huge_pages(pairs * columns * PAIR).view(torch.bfloat16).view(pairs, columns, 2)
        laid[: size // 2, :out] = weight[:, : size // 2 * 2].t().unflatten(0, (-1, 2)).transpose(1, 2)
        if size % 2:
            laid[-1, :out, 0] = weight[:, -1]
        return cls(laid, out, size)

    def multiply(self, x: Tensor, bias: Tensor | None = None, additions: Sequence[Addition] = ()) -> Tensor:
        """x [rows, in] in fp32, rounded -> x @ weight.T + bias [rows, out] in fp32, and additions, which are not."""
        x = by_row(x)
        y = x.new_empty(len(x), self.out)
        onto = (None, 0) if bias is None else (bias.data_ptr(), 0)
        given = x.data_ptr(), x.stride(0), len(x), self.size, self.weight.data_ptr(), self.weight.shape[1]
        added = _told(additions, y)
        library().multiply_pairs(
            *given, *onto, y.data_ptr(), self.out, self.out, added.buffer_info()[0], len(additions)
        )
        return y


@dataclass(frozen=True)
class Int8Weight:
    """A weight [out, in] in 8 bits, the scale of each of its rows in fp32 [out], and what each row sums to."""

    weight: Tensor
    scales: Tensor
    sums: Tensor

    @classmethod
    def suiting(cls, weight: Tensor, scales: Tensor) -> Int8Weight | None:
        """None where the processor, or the shape, does not suit `multiply`."""
        out, size = weight.shape
        if library() is None or size % BYTES or size > MOST_IN or out % 4:
            return None
        return cls(weight.contiguous(), scales.float(), weight.sum(dim=1, dtype=torch.int32))

    def multiply(self, x: Tensor) -> Tensor:
        """x [rows, in] in fp32, each row rounded to 16 bits -> x @ (weight * scales).T [rows, out]."""
        x, (out, size) = x.contiguous(), self.weight.shape
        y = x.new_empty(len(x), out)
        weights = self.weight.data_ptr(), self.scales.data_ptr(), self.sums.data_ptr()
        library().multiply_int8(x.data_ptr(), len(x), size, *weights, y.data_ptr(), out)
        return y
