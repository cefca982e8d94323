"""Norms, gates and rotary positions: layers.c."""

from __future__ import annotations

from torch import Tensor

from posttrain.engines.torch.native.library import library


def norm(x: Tensor, scale: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x [..., size] / sqrt(mean(x^2) + epsilon) * scale [size], and what x was multiplied with [..., 1]."""
    x = x.contiguous()
    y, inverse, size = x.new_empty(x.shape), x.new_empty(*x.shape[:-1], 1), x.shape[-1]
    library().norm(x.data_ptr(), scale.data_ptr(), y.data_ptr(), inverse.data_ptr(), x.numel() // size, size, epsilon)
    return y, inverse


def norm_backward(gradient: Tensor, x: Tensor, scale: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of x, given that of the norm."""
    gradient, x = gradient.contiguous(), x.contiguous()
    of_x, size = x.new_empty(x.shape), x.shape[-1]
    library().norm_backward(
        gradient.data_ptr(),
        x.data_ptr(),
        scale.data_ptr(),
        inverse.data_ptr(),
        of_x.data_ptr(),
        x.numel() // size,
        size,
    )
    return of_x


def gate(joined: Tensor) -> Tensor:
    """Gate and up side by side [rows, 2 * width] -> silu(gate) * up [rows, width]."""
    joined = by_row(joined)
    rows, width = len(joined), joined.shape[1] // 2
    y = joined.new_empty(rows, width)
    library().gate(joined.data_ptr(), joined.stride(0), y.data_ptr(), rows, width)
    return y


def gate_backward(joined: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of gate and up, given that of what they come to."""
    joined, gradient = by_row(joined), gradient.contiguous()
    of_joined = joined.new_empty(joined.shape)
    library().gate_backward(
        joined.data_ptr(), joined.stride(0), gradient.data_ptr(), of_joined.data_ptr(), *gradient.shape
    )
    return of_joined


def turn(x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, *, back: bool = False) -> None:
    """Writes into y what x [rows, heads * size] becomes, turned by cos and sin [rows, size], or `back`.
    Rows of x and y may be parts of longer ones."""
    x = by_row(x)
    cos, sin, size = cos.contiguous(), sin.contiguous(), cos.shape[1]
    library().turn(
        x.data_ptr(), x.stride(0), cos.data_ptr(), sin.data_ptr(), -1.0 if back else 1.0,
        y.data_ptr(), y.stride(0), len(x), x.shape[1] // size, size,
    )  # fmt: skip


def by_row(x: Tensor) -> Tensor:
    """The numbers of a row [rows, numbers] must lie together; rows may be parts of longer ones."""
    return x if x.stride(1) == 1 else x.contiguous()
