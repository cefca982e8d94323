"""The gate of a decoder's wide layers, act(gate) * up (arXiv:2002.05202, section 2), with a gradient of its own for
SiLU: what training keeps of it is its input alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu
from transformers.activations import SiLUActivation

from posttrain.engines.torch import native
from posttrain.engines.torch.fused import fused


def gated(joined: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Gate and up side by side [rows, 2 * width] -> activation(gate) * up [rows, width]."""
    if not isinstance(activation, nn.SiLU | SiLUActivation):
        gate, up = joined.chunk(2, dim=1)
        return activation(gate) * up
    if torch.is_grad_enabled() and joined.requires_grad:
        return _Gated.apply(joined)
    return _forward(joined)


def _forward(joined: Tensor) -> Tensor:
    return native.layers.gate(joined) if native.suits(joined) else _by_torch(joined)


@fused
def _by_torch(joined: Tensor) -> Tensor:
    gate, up = joined.chunk(2, dim=1)
    return silu(gate).mul_(up)


@fused
def _gradient_by_torch(gradient: Tensor, joined: Tensor) -> Tensor:
    gate, up = joined.chunk(2, dim=1)
    of_joined = torch.empty_like(joined)
    of_gate, of_up = of_joined.chunk(2, dim=1)
    of_up.copy_(silu(gate)).mul_(gradient)
    of_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
    return of_joined


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        ctx.save_for_backward(joined)
        return _forward(joined)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (joined,) = ctx.saved_tensors
        if native.suits(gradient):
            return native.layers.gate_backward(joined, gradient)
        return _gradient_by_torch(gradient, joined)
