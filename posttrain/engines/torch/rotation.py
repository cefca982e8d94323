"""Rotary positions (arXiv:2104.09864, eq. 34), by halves as Llama has them: queries and keys are turned together, in
three operations instead of fourteen, and back by a gradient of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from posttrain.engines.torch import native


def turned(joined: Tensor, cos: Tensor, sin: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Queries and keys, and maybe values, side by side [tokens, sum of widths] -> each [tokens, width].

    cos and sin are those of the tokens' positions [tokens, head size]: in every head of queries and keys x1 becomes
    x1 cos - x2 sin, and x2 becomes x2 cos + x1 sin.  Values stay as they are.
    """
    if torch.is_grad_enabled() and joined.requires_grad:
        return _Turned.apply(joined, cos, sin, tuple(widths))
    return _forward(joined, cos, sin, widths)


def _forward(joined: Tensor, cos: Tensor, sin: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    turning = widths[0] + widths[1]
    y = joined.new_empty(len(joined), turning)
    half = cos.shape[1] // 2
    if native.suits(joined) and cos.dtype == joined.dtype:
        native.layers.turn(joined[:, :turning], cos, sin, y)
    else:
        _turn(joined[:, :turning], y, cos, -sin[:, :half], sin[:, half:])
    values = joined[:, turning:].split([*widths[2:]], dim=1) if len(widths) > 2 else ()
    return (*y.split([*widths[:2]], dim=1), *values)


def _turn(x: Tensor, y: Tensor, cos: Tensor, of_second: Tensor, of_first: Tensor) -> None:
    """Writes into y, like x [tokens, heads * head size], in every head x1 * cos + x2 * of_second and x2 * cos + x1 *
    of_first; these [tokens, half of the head size]."""
    by_head, half = (len(x), -1, cos.shape[1]), cos.shape[1] // 2
    x, y = x.reshape(by_head), y.view(by_head)
    torch.mul(x, cos[:, None], out=y)
    y[..., :half].addcmul_(x[..., half:], of_second[:, None])
    y[..., half:].addcmul_(x[..., :half], of_first[:, None])


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor, cos: Tensor, sin: Tensor, widths: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.widths = widths
        q, k, *values = _forward(joined, cos, sin, widths)
        return q, k, *(v.clone() for v in values)  # so that what is joined can go: attention keeps these

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        half = cos.shape[1] // 2
        joined = gradients[0].new_empty(len(cos), sum(ctx.widths))
        rooms = joined.split([*ctx.widths], dim=1)
        for room, gradient in zip(rooms[:2], gradients[:2], strict=True):
            if native.suits(gradient) and cos.dtype == gradient.dtype:
                native.layers.turn(gradient, cos, sin, room, back=True)
            else:
                _turn(gradient, room, cos, sin[:, half:], -sin[:, :half])
        for room, gradient in zip(rooms[2:], gradients[2:], strict=True):
            room.copy_(gradient)
        return joined, None, None, None
