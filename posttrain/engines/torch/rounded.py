"""Products with frozen weights in bfloat16, on CPUs that multiply it natively.

The weights are rounded and laid out for the processor once: for C, or for oneDNN.  Left as they are, oneDNN lays them
out anew in every product, which for the few tokens of a decoding step takes as long as the product itself (and twice as
long to read): one token through SmolLM2-135M took 55 ms of products before, and 27 ms so (an Intel with AMX).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posttrain.engines.torch import native, onednn
from posttrain.engines.torch.native.products import Addition, PairedWeight


def is_native() -> bool:
    """Whether this CPU multiplies bfloat16."""
    return bool(onednn.OPERATIONS._is_mkldnn_bf16_supported())


def lay_out(weight: Tensor) -> Tensor:
    """A weight [out, in] as `multiply` wants it."""
    return onednn.lay_out(weight.bfloat16())


def multiply(x: Tensor, laid_out: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] in fp32 -> [..., out] in fp32; what is multiplied is rounded, and so is the result."""
    return onednn.multiply(x.bfloat16(), laid_out, bias).float()


class RoundedProduct:
    """fp32 in and out, rounded to bfloat16 between.  In C on one thread, where that has no faster way; the result is
    not rounded then."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def product(self, x: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        if native.suits_here(x) and self.native is not None:
            return self.native.multiply(x, self.linear.bias, additions)
        return onednn.with_additions(multiply(x, self._weight, self._bias), additions)

    def product_with_transposed(self, gradient: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        if native.suits_here(gradient) and self._native_transposed is not None:
            return self._native_transposed.multiply(gradient, None, additions)
        return onednn.with_additions(multiply(gradient, self._transposed, None), additions)

    @property
    def rows_are_alike(self) -> bool:
        """See onednn.OneDNNProduct."""
        return self.native is not None

    @functools.cached_property
    def native(self) -> PairedWeight | None:
        """For the functions in C."""
        return PairedWeight.suiting(self.linear.weight)

    @functools.cached_property
    def _native_transposed(self) -> PairedWeight | None:
        return PairedWeight.suiting(self.linear.weight.t())

    @functools.cached_property
    def _weight(self) -> Tensor:
        return lay_out(self.linear.weight)

    @functools.cached_property
    def _transposed(self) -> Tensor:
        return lay_out(self.linear.weight.t())

    @functools.cached_property
    def _bias(self) -> Tensor | None:
        with torch.inference_mode(False):
            return None if self.linear.bias is None else self.linear.bias.detach().bfloat16()
