"""Products with frozen weights in 8 bits, for answering on a CPU.

A step of decoding few tokens waits for the weights to be read, and these are a quarter of fp32 and half of bfloat16.
Each row of a weight has a scale of its own, its largest number over 127 (the "vector-wise" quantisation of
arXiv:2208.07339, section 3.1); what is multiplied with it stays as it is.  Answers may change: see `posttrain evaluate
--precision int8`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

LARGEST = 127


class Int8Product:
    """fp32 in and out.  There is no gradient: weights in 8 bits answer and are not learnt with."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def product(self, x: Tensor) -> Tensor:
        weight, scales = self._quantised
        y = torch._weight_int8pack_mm(x, weight, scales)
        return y if self.linear.bias is None else y.add_(self.linear.bias)

    def product_with_transposed(self, gradient: Tensor) -> Tensor:  # noqa: ARG002
        raise RuntimeError("weights in 8 bits are not learnt with")

    @functools.cached_property
    def _quantised(self) -> tuple[Tensor, Tensor]:
        """The weight [out, in] in int8, and the scales [out]."""
        weight = self.linear.weight.detach()
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny) / LARGEST
        return (weight / scales[:, None]).round().to(torch.int8).contiguous(), scales
