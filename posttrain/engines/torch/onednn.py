"""oneDNN's products with frozen weights: what torch itself calls for bfloat16, while it gives fp32 to MKL."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from posttrain.engines.torch.weights import WHOLE

OPERATIONS = torch.ops.mkldnn
"""What torch.compile uses for frozen weights."""

INTEL = "GenuineIntel"

FREE_TOKENS = 4
"""See network.FREE_TOKENS: SmolLM2-135M takes 18, 21, 23 and 24 ms of 1, 2, 4 and 8 (AMD EPYC)."""


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] @ weight [out, in].T + bias [..., out], of one type; the weight may be a view, or laid out."""
    return OPERATIONS._linear_pointwise(x, weight, bias, "none", [], "")


def lay_out(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] as the processor reads it quickest, for `multiply` alone."""
    with torch.inference_mode(False):  # whoever comes first, training must be able to use it too
        return OPERATIONS._reorder_linear_weight(weight.detach().contiguous(), None)


class OneDNNProduct:
    """fp32, with the weights as they are.  Those that lie by column are multiplied as fast as those laid out."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def product(self, x: Tensor) -> Tensor:
        weight, bias, whole = self.linear.weight, self.linear.bias, getattr(self.linear, WHOLE, None)
        if whole is not None:
            y = multiply(x, whole, None)[..., : len(weight)]
            return y if bias is None else y.add_(bias)
        if not _is_dense(weight):
            return nn.functional.linear(x, weight, bias)
        return multiply(x, weight, bias)

    def product_with_transposed(self, gradient: Tensor) -> Tensor:
        weight, whole = self.linear.weight, getattr(self.linear, WHOLE, None)
        if whole is not None:
            return multiply(pad(gradient, (0, len(whole) - len(weight))), whole.t(), None)
        if not _is_dense(weight):
            return gradient @ weight
        return multiply(gradient, weight.t(), None)


def _is_dense(weight: Tensor) -> bool:
    """Of others, as are those of layers that were joined, oneDNN has no fast product."""
    return weight.is_contiguous() or weight.t().is_contiguous()


def suits(weight: Tensor) -> bool:
    """Whether products with this weight are faster by oneDNN than by MKL (docs/notes/2026-11-29-mkl-on-amd.md).

    That goes by the processor and is no trial: the two round differently, and a run that is resumed must give the same.
    """
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and _mkl_is_slow()


@functools.cache
def _mkl_is_slow() -> bool:
    """With AVX-512 that is not Intel's, of which MKL uses half."""
    return torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_intel()


def _is_intel() -> bool:
    try:
        return INTEL in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return INTEL in platform.processor()
