"""RMSNorm (arXiv:1910.07467) with a gradient of its own, in fewer passes over memory.

Only frozen weights; in half precision only where it is compiled, for that rounds once.  A model's own norm is replaced
when it gives the same numbers, else left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from posttrain.engines.torch import native
from posttrain.engines.torch.fused import compiles, fused

ROUNDING: Mapping[torch.dtype, float] = {torch.float32: 1e-6}
"""Relative: the same sums in another order; of other types `COARSE`."""

COARSE = 1e-2


def replace_norms(network: nn.Module) -> int:
    """Replaces the RMSNorms of a network that has been frozen; says how many."""
    replaced = 0
    for module in network.modules():
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        if type(module).__name__.endswith("RMSNorm") and isinstance(epsilon, float) and isinstance(weight, Tensor):
            replaced += _replace(module, weight, epsilon)
    return replaced


@torch.no_grad()
def _replace(module: nn.Module, weight: Tensor, epsilon: float) -> bool:
    if weight.requires_grad or (weight.dtype != torch.float32 and not compiles(weight)):
        return False
    generator = torch.Generator().manual_seed(0)  # not the global one: that is the user's
    x = torch.randn(3, len(weight), generator=generator).to(weight)
    wanted, rounding = module(x), ROUNDING.get(weight.dtype, COARSE)
    if wanted.dtype != weight.dtype:
        return False
    for scale in (weight.float(), 1 + weight.float()):  # as Llama has it, and Gemma
        if torch.allclose(root_mean_square_norm(x, scale, epsilon), wanted, rtol=rounding, atol=rounding):
            if weight.dtype != torch.float32 and not compiles(weight):  # that was found out just now
                return False
            module.forward = Norm(module.forward, scale, epsilon, weight.dtype)
            return True
    return False


@dataclass(frozen=True, eq=False)
class Norm:
    """The forward call of a norm of one type."""

    plain: Callable[[Tensor], Tensor]
    scale: Tensor
    epsilon: float
    dtype: torch.dtype

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """x [..., size] -> the same."""
        if hidden_states.dtype != self.dtype:
            return self.plain(hidden_states)
        return root_mean_square_norm(hidden_states, self.scale, self.epsilon)


def root_mean_square_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """x [..., size] / sqrt(mean(x^2) + epsilon) * scale [size], in fp32 and then like x.  Only x gets a gradient."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Norm.apply(x, scale, epsilon)
    single = x.numel() == len(scale) and x.is_cpu and x.dtype == scale.dtype
    if single and not native.suits(x):  # every operation is felt
        inverse = (float(torch.dot(x.flatten(), x.flatten())) / len(scale) + epsilon) ** -0.5
        return (x * scale).mul_(inverse)
    return _normed(x, scale, epsilon)[0]


def _normed(x: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The norm, and 1 / sqrt(mean(x^2) + epsilon) [..., 1]."""
    return native.layers.norm(x, scale, epsilon) if native.suits(x) else _by_torch(x, scale, epsilon)


@fused
def _by_torch(x: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    wide = x.to(scale.dtype)
    mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().mul_(1 / x.shape[-1])
    inverse = mean_square.add_(epsilon).rsqrt_()
    return (wide * inverse).mul_(scale).to(x.dtype), inverse


@fused
def _gradient_by_torch(gradient: Tensor, x: Tensor, scale: Tensor, inverse: Tensor) -> Tensor:
    of_x, wide = gradient.to(scale.dtype) * scale, x.to(scale.dtype)
    along = torch.linalg.vecdot(of_x, wide)[..., None]
    return of_x.mul_(inverse).addcmul_(wide, along * inverse**3, value=-1 / x.shape[-1]).to(x.dtype)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
        normed, inverse = _normed(x, scale, epsilon)
        ctx.save_for_backward(x, scale, inverse)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, scale, inverse = ctx.saved_tensors
        if native.suits(gradient):
            return native.layers.norm_backward(gradient, x, scale, inverse), None, None
        return _gradient_by_torch(gradient, x, scale, inverse), None, None
