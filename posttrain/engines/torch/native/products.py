"""Products with frozen weights: products.c and int8.c."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.engines.torch.native.layers import by_row
from posttrain.engines.torch.native.library import has_pairs, has_vnni, library
from posttrain.engines.torch.weights import huge_pages, stored_columns

BYTES = 64
"""Weights in 8 bits are read so many at a time."""

PAIR = 4
"""Bytes of two numbers of bfloat16."""

MOST_IN = 32768
"""Weights of a row; sums of more might not fit."""


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [rows, in] @ weight [out, in].T + bias [out], the weight lying by row or by column."""
    y = x.new_empty(len(x), len(weight))
    start = (None, 0) if bias is None else (bias.data_ptr(), 0)
    _multiply(x, weight, start, y)
    return y


def add_product(y: Tensor, x: Tensor, weight: Tensor) -> None:
    """y [rows, out] += x [rows, in] @ weight [out, in].T, in its place; its rows may be parts of longer ones."""
    if y.stride(1) != 1:
        raise RuntimeError("what is added to must lie by row")
    _multiply(x, weight, (y.data_ptr(), y.stride(0)), y)


def _multiply(x: Tensor, weight: Tensor, start: tuple[int | None, int], y: Tensor) -> None:
    if 1 not in weight.stride():
        weight = weight.contiguous()
    turned = weight.stride(1) == 1
    (out, size), stride = weight.shape, weight.stride(0 if turned else 1)
    given = x.data_ptr(), x.stride(0), x.stride(1), len(x), size, weight.data_ptr(), stride, turned
    library().multiply(*given, *start, y.data_ptr(), y.stride(0), out)


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
        laid.zero_()
        laid[: size // 2, :out] = weight[:, : size // 2 * 2].t().unflatten(0, (-1, 2)).transpose(1, 2)
        if size % 2:
            laid[-1, :out, 0] = weight[:, -1]
        return cls(laid, out, size)

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [rows, in] in fp32, rounded -> x @ weight.T + bias [rows, out] in fp32."""
        x = by_row(x)
        y = x.new_empty(len(x), self.out)
        onto = (None, 0) if bias is None else (bias.data_ptr(), 0)
        given = x.data_ptr(), x.stride(0), len(x), self.size, self.weight.data_ptr(), self.weight.shape[1]
        library().multiply_pairs(*given, *onto, y.data_ptr(), self.out, self.out)
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
        if not has_vnni() or size % BYTES or size > MOST_IN or out % 4:
            return None
        return cls(weight.contiguous(), scales.float(), weight.sum(dim=1, dtype=torch.int32))

    def multiply(self, x: Tensor) -> Tensor:
        """x [rows, in] in fp32, each row rounded to 16 bits -> x @ (weight * scales).T [rows, out]."""
        x, (out, size) = x.contiguous(), self.weight.shape
        y = x.new_empty(len(x), out)
        weights = self.weight.data_ptr(), self.scales.data_ptr(), self.sums.data_ptr()
        library().multiply_int8(x.data_ptr(), len(x), size, *weights, y.data_ptr(), out)
        return y
