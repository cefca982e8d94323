"""Products in fp32 where MKL has half its speed: in C on one thread, by oneDNN on several."""

from __future__ import annotations

import functools
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from posttrain.engines.torch import native
from posttrain.engines.torch.native.products import Addition
from posttrain.engines.torch.weights import WHOLE

OPERATIONS = torch.ops.mkldnn
"""What torch.compile uses for frozen weights."""

INTEL = "GenuineIntel"

FREE_TOKENS = 4
"""See network.FREE_TOKENS: by oneDNN, SmolLM2-135M takes 18, 21, 23 and 24 ms of 1, 2, 4 and 8 (AMD EPYC)."""

FEW_ROWS = 8
"""With a weight the other way round, ours has to turn it: of fewer rows that takes longer than the product."""

MANY_ROWS = 16
"""Of fewer, a narrow product takes no longer than calling it."""


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] @ weight [out, in].T + bias [out], of one type.

    The weight lies by row or by column, or is laid out: with a part of another it takes a thousand times as long.
    """
    return OPERATIONS._linear_pointwise(x, weight, bias, "none", [], "")


def lay_out(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] as the processor reads it quickest, for `multiply` alone."""
    with torch.inference_mode(False):  # whoever comes first, training must be able to use it too
        return OPERATIONS._reorder_linear_weight(weight.detach().contiguous(), None)


class OneDNNProduct:
    """fp32, with the weights as they are.  Those that lie by column are multiplied as fast as those laid out."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear, self.weight, self.bias = linear, linear.weight, linear.bias

    def product(self, x: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        if self._is_by_column and native.suits_here(x):
            return native.products.multiply(x, self.weight, self.bias, additions)
        return with_additions(self._product(x), additions)

    def _product(self, x: Tensor) -> Tensor:
        whole = self._whole
        if whole is not None:
            y = multiply(x, whole, None)[..., : self.linear.out_features]
            return y if self.bias is None else y.add_(self.bias)
        if not _is_dense(self.weight):
            return nn.functional.linear(x, self.weight, self.bias)
        return multiply(x, self.weight, self.bias)

    def product_with_transposed(self, gradient: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        if self._is_by_column and len(gradient) >= FEW_ROWS and native.suits_here(gradient):
            return native.products.multiply(gradient, self.weight.t(), None, additions)
        return with_additions(self._product_with_transposed(gradient), additions)

    def _product_with_transposed(self, gradient: Tensor) -> Tensor:
        whole = self._whole
        if whole is not None:
            return multiply(pad(gradient, (0, len(whole) - gradient.shape[-1])), whole.t(), None)
        if not _is_dense(self.weight):
            return gradient @ self.weight
        return multiply(gradient, self.weight.t(), None)

    @property
    def rows_are_alike(self) -> bool:
        """Whether on one thread the bits of a row do not depend on how many there are."""
        return self._is_by_column and native.suits(self.weight)

    @property
    def _is_by_column(self) -> bool:
        return self.weight.stride(0) == 1

    @property
    def _whole(self) -> Tensor | None:
        """The weight with the columns to spare that it is stored with, if it is."""
        return self.linear._buffers.get(WHOLE)


def _is_dense(weight: Tensor) -> bool:
    """Of others, as are those of layers that were joined, oneDNN has no fast product."""
    return weight.is_contiguous() or weight.t().is_contiguous()


def times_transposed(x: Tensor, y: Tensor) -> Tensor:
    """x [rows, k] @ y [columns, k].T, in C or by oneDNN where that is faster: of many rows, and however narrow."""
    if suits(x) and native.suits_here(x):
        return native.products.multiply(x, y)
    if len(x) < MANY_ROWS or not suits(x):
        return x @ y.t()
    return multiply(x, y if _is_dense(y) else y.contiguous(), None)


def add_times_transposed(z: Tensor, x: Tensor, y: Tensor) -> None:
    """z [rows, columns] += x [rows, k] @ y [columns, k].T, in its place."""
    if suits(z) and native.suits_here(z):
        native.products.add_product(z, x, y)
    else:
        z.addmm_(x, y.t())


def with_additions(y: Tensor, additions: Sequence[Addition]) -> Tensor:
    """A product with what is added to parts of it, in its place."""
    for each in additions:
        add_times_transposed(y[each.rows, each.columns], each.narrow, each.wide)
    return y


def contiguous_where_copied(x: Tensor) -> Tensor:
    """For several products: where C does not compute them, each would copy what is a part of longer rows."""
    return x if suits(x) and native.suits_here(x) else x.contiguous()


def suits(weight: Tensor) -> bool:
    """Whether products with this weight are faster by oneDNN than by MKL (docs/notes/2026-11-29-mkl-on-amd.md).

    That goes by the processor and is no trial: the two round differently, and a run that is resumed must give the same.
    """
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _mkl_is_slow()


@functools.cache
def _mkl_is_slow() -> bool:
    """Not Intel's: of AVX-512 MKL uses half there, and few rows wait for memory longer than they need to."""
    capable = torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2")
    return torch.backends.mkl.is_available() and capable and not _is_intel()


def _is_intel() -> bool:
    try:
        return INTEL in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return INTEL in platform.processor()
