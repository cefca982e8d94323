"""RMSNorm (arXiv:1910.07467) with a gradient of its own, in fewer passes over memory.

Only fp32, only frozen weights.  A model's own norm is replaced when it gives the same numbers, else left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from posttrain.engines.torch import native

ROUNDING = 1e-6
"""Relative: the same sums in another order."""


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
    if weight.dtype != torch.float32 or weight.requires_grad:
        return False
    generator = torch.Generator().manual_seed(0)  # not the global one: that is the user's
    x = torch.randn(3, len(weight), generator=generator).to(weight.device)
    wanted = module(x)
    for scale in (weight, 1 + weight):  # as Llama has it, and Gemma
        if torch.allclose(root_mean_square_norm(x, scale, epsilon), wanted, rtol=ROUNDING, atol=ROUNDING):
            module.forward = Norm(module.forward, scale, epsilon)
            return True
    return False


@dataclass(frozen=True, eq=False)
class Norm:
    """The forward call of a norm.  Half-precision models compute their norms in fp32 and round between: that is left to
    their own code."""

    plain: Callable[[Tensor], Tensor]
    scale: Tensor
    epsilon: float

    def __call__(self, hidden_states: Tensor) -> Tensor:
        """x [..., size] -> the same."""
        if hidden_states.dtype != torch.float32:
            return self.plain(hidden_states)
        return root_mean_square_norm(hidden_states, self.scale, self.epsilon)


def root_mean_square_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """x [..., size] / sqrt(mean(x^2) + epsilon) * scale [size].  Only x gets a gradient."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Norm.apply(x, scale, epsilon)
    if x.numel() == len(scale) and x.is_cpu and not native.suits(x):  # a single token, of which every operation is felt
        inverse = (float(torch.dot(x.flatten(), x.flatten())) / len(scale) + epsilon) ** -0.5
        return (x * scale).mul_(inverse)
    return _normed(x, scale, epsilon)[0]


def _normed(x: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The norm, and 1 / sqrt(mean(x^2) + epsilon) [..., 1]."""
    if native.suits(x):
        return native.layers.norm(x, scale, epsilon)
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().mul_(1 / x.shape[-1])
    inverse = mean_square.add_(epsilon).rsqrt_()
    return (x * inverse).mul_(scale), inverse


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
        of_x = gradient * scale
        along = torch.linalg.vecdot(of_x, x)[..., None]
        return of_x.mul_(inverse).addcmul_(x, along * inverse**3, value=-1 / x.shape[-1]), None, None
