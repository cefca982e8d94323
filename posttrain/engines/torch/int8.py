"""Products with frozen weights in 8 bits, for answering on a CPU.

A step of decoding few tokens waits for the weights to be read, and these are a quarter of fp32 and half of bfloat16.
Each row of a weight has a scale of its own, its largest number over 127 (the "vector-wise" quantisation of
arXiv:2208.07339, section 3.1); what is multiplied with it is rounded to bfloat16.  Answers may change: see `posttrain
evaluate --precision int8`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posttrain.engines.torch import onednn, rounded
from posttrain.engines.torch.native.products import Addition, Int8Weight

LARGEST = 127

SMALLEST = 1e-30
"""A row of nothing but zeros needs a scale too."""

FEW_ROWS = 4
"""Of more, weights in 8 bits take longer than the same numbers in bfloat16 where the CPU multiplies that: SmolLM2-135M
takes 26, 35, 58 and 161 ms of 1, 4, 8 and 32 rows, and 37, 40, 43 and 57 ms in bfloat16."""

FEW_ROWS_NATIVELY = 8


class Int8Product:
    """fp32 in and out.  There is no gradient: weights in 8 bits answer and are not learnt with.

    Where the CPU multiplies bfloat16, the same weights are laid out in it for more than a few rows, as prompts have.
    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def product(self, x: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        return onednn.with_additions(self._product(x), additions)

    def _product(self, x: Tensor) -> Tensor:
        weight, scales = self._quantised
        few = FEW_ROWS if self.native is None else FEW_ROWS_NATIVELY
        if len(x) > few and self._laid_out is not None:
            y = rounded.multiply(x, self._laid_out, None)
        elif self.native is not None:
            y = self.native.multiply(x)
        else:
            y = torch._weight_int8pack_mm(x.bfloat16(), weight, scales).float()
        return y if self.linear.bias is None else y.add_(self.linear.bias)

    def product_with_transposed(self, gradient: Tensor, additions: Sequence[Addition] = ()) -> Tensor:  # noqa: ARG002
        raise RuntimeError("weights in 8 bits are not learnt with")

    @functools.cached_property
    def _quantised(self) -> tuple[Tensor, Tensor]:
        """The weight [out, in] in int8, and the scales [out], in bfloat16: quantised by them as they are there."""
        weight = self.linear.weight.detach()
        scales = (weight.abs().amax(dim=1).clamp(min=SMALLEST) / LARGEST).bfloat16()
        quantised = (weight / scales.float()[:, None]).round().clamp(-LARGEST, LARGEST)
        return quantised.to(torch.int8).contiguous(), scales

    @functools.cached_property
    def native(self) -> Int8Weight | None:
        """For the functions in C."""
        return Int8Weight.suiting(*self._quantised)

    @functools.cached_property
    def _laid_out(self) -> Tensor | None:
        weight, scales = self._quantised
        return rounded.lay_out(weight.float() * scales.float()[:, None]) if rounded.is_native() else None
