"""The product of an adapted layer: frozen weights, and on spans of its rows the low-rank deltas of adapters.

Written with its own gradient, because sums are made by the products that add to them: y and the gradient of x are each
written once and added to in place, where separate operations would copy them for every adapter and add the copies up.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class FrozenProduct(Protocol):
    """Products with frozen weights [out, in]."""

    def product(self, x: Tensor) -> Tensor:
        """x [..., in] -> x @ weight.T + bias [..., out], a fresh tensor."""
        ...

    def product_with_transposed(self, gradient: Tensor) -> Tensor:
        """What reaches x of the gradient [..., out]: gradient @ weight [..., in], a fresh tensor."""
        ...


class PlainProduct:
    """With the weights as they are."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight, self.bias = linear.weight, linear.bias

    def product(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def product_with_transposed(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight


def lay_out_for_products(model: Any) -> None:
    """Stores the frozen weights of linear layers by column, one behind the other in huge pages where the system has
    them: few rows are multiplied in 0.75 to 0.9 of the time, for nothing needs transposing on the way, and fewer pages
    have to be found; many rows no slower (docs/notes/2026-11-28-narrow-products.md, 2026-11-28-one-stream.md).

    Weights that other modules share stay as they are: an embedding reads rows.
    """
    owners = Counter(parameter for module in model.modules() for parameter in module._parameters.values())
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and owners[module.weight] == 1]
    room = _huge_pages(sum(linear.weight.nbytes for linear in linears))
    for linear in linears:
        out_features, in_features = linear.weight.shape
        place, room = room[: linear.weight.nbytes], room[linear.weight.nbytes :]
        by_column = place.view(linear.weight.dtype).view(in_features, out_features).t()
        linear.weight.data = by_column.copy_(linear.weight.data)


def _huge_pages(count: int) -> Tensor:
    """So many bytes [count], in pages of 2 MB instead of 4 kB where that can be asked for."""
    if not count:
        return torch.empty(0, dtype=torch.uint8)
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count, dtype=torch.uint8)
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


@dataclass(frozen=True)
class Delta:
    """One adapter on rows [start, end): adds scale * (x @ a.T) @ b.T, with a [rank, in] and b [out, rank]."""

    start: int
    end: int
    a: Tensor
    b: Tensor
    scale: float


def adapted_product(x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta]) -> Tensor:
    """x [rows, in] -> [rows, out] (arXiv:2106.09685, eq. 3)."""
    tensors = [tensor for delta in deltas for tensor in (delta.a, delta.b)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *tensors)):
        return _AdaptedProduct.apply(x, frozen, deltas, *tensors)
    return _forward(x, frozen, deltas)[0]


def _forward(x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta]) -> tuple[Tensor, list[Tensor]]:
    y, narrows = frozen.product(x), []
    for delta in deltas:
        rows = slice(delta.start, delta.end)
        # scaled where it is narrowest
        narrows.append((x[rows] @ delta.a.to(x.dtype).t()).mul_(delta.scale))
        y[rows].addmm_(narrows[-1], delta.b.to(x.dtype).t())
    return y, narrows


class _AdaptedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta], *_: Tensor) -> Tensor:
        y, narrows = _forward(x, frozen, deltas)
        ctx.frozen, ctx.deltas = frozen, deltas
        ctx.save_for_backward(x, *narrows)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *narrows = ctx.saved_tensors
        of_x = ctx.frozen.product_with_transposed(gradient) if ctx.needs_input_grad[0] else None
        of_tensors: list[Tensor | None] = []
        for delta, narrow in zip(ctx.deltas, narrows, strict=True):
            rows = slice(delta.start, delta.end)
            above = gradient[rows]
            of_narrow = (above @ delta.b.to(x.dtype)).mul_(delta.scale)
            if of_x is not None:
                of_x[rows].addmm_(of_narrow, delta.a.to(x.dtype))
            trained = delta.a.requires_grad
            of_tensors.append((of_narrow.t() @ x[rows]).to(delta.a.dtype) if trained else None)
            # so and not above.t() @ narrow: few rows and many columns are multiplied faster than the other way round
            of_tensors.append((narrow.t() @ above).t().to(delta.b.dtype).contiguous() if trained else None)
        return of_x, None, None, *of_tensors
