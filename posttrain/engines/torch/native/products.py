"""Products with frozen weights: products.c and int8.c."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.engines.torch.native.layers import by_row
from posttrain.engines.torch.native.library import has_vnni, library

BYTES = 64
"""Weights in 8 bits are read so many at a time."""

MOST_IN = 32768
"""Weights of a row; sums of more might not fit."""


def multiply_row(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [1, in] @ weight [out, in].T + bias [out], the weight lying by column."""
    (out, size), stride = weight.shape, weight.stride(1)
    y = x.new_empty(1, out)
    add = None if bias is None else bias.data_ptr()
    library().multiply_row(x.contiguous().data_ptr(), size, weight.data_ptr(), stride, add, y.data_ptr(), out)
    return y


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [rows, in] @ weight [out, in].T + bias [out], the weight lying by column."""
    x, (out, size) = by_row(x), weight.shape
    y = x.new_empty(len(x), out)
    add = None if bias is None else bias.data_ptr()
    given = x.data_ptr(), x.stride(0), len(x), size, weight.data_ptr(), weight.stride(1), 0, add
    library().multiply(*given, y.data_ptr(), out, out)
    return y


def multiply_transposed(gradient: Tensor, weight: Tensor) -> Tensor:
    """gradient [rows, out] @ weight [out, in], the weight lying by column."""
    gradient, (out, size) = by_row(gradient), weight.shape
    x = gradient.new_empty(len(gradient), size)
    given = gradient.data_ptr(), gradient.stride(0), len(gradient), out, weight.data_ptr(), weight.stride(1), 1, None
    library().multiply(*given, x.data_ptr(), size, size)
    return x


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
