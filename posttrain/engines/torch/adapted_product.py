"""The product of an adapted layer: frozen weights, and on spans of its rows the low-rank deltas of adapters.

Written with its own gradient, because sums are made by the products that add to them: y and the gradient of x are each
written once and added to in place, where separate operations would copy them for every adapter and add the copies up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from posttrain.engines.torch.native.products import Addition
from posttrain.engines.torch.onednn import contiguous_where_copied, times_transposed, with_additions


class FrozenProduct(Protocol):
    """Products with frozen weights [out, in]."""

    def product(self, x: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        """x [rows, in] -> x @ weight.T + bias, and the additions [rows, out], a fresh tensor."""
        ...

    def product_with_transposed(self, gradient: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        """What reaches x of the gradient [rows, out]: gradient @ weight, and additions [rows, in], a fresh tensor."""
        ...


class PlainProduct:
    """With the weights as they are."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight, self.bias = linear.weight, linear.bias

    def product(self, x: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        return with_additions(nn.functional.linear(x, self.weight, self.bias), additions)

    def product_with_transposed(self, gradient: Tensor, additions: Sequence[Addition] = ()) -> Tensor:
        return with_additions(gradient @ self.weight, additions)


ALL = slice(None)
"""Columns."""


@dataclass(frozen=True)
class Pair:
    """A [rank, in] and B [columns, rank] of an adapter, which add to some columns of y."""

    a: Tensor
    b: Tensor
    columns: slice


@dataclass(frozen=True)
class Delta:
    """One adapter on rows [start, end): each of its pairs adds scale * (x @ a.T) @ b.T."""

    start: int
    end: int
    pairs: Sequence[Pair]
    scale: float

    @property
    def rows(self) -> slice:
        return slice(self.start, self.end)

    @cached_property
    def ranks(self) -> list[slice]:
        """Where each pair lies in what `a` makes of x."""
        ends = accumulate((len(pair.a) for pair in self.pairs), initial=0)
        return [slice(*span) for span in pairwise(ends)]

    def a(self, dtype: torch.dtype) -> Tensor:
        """All A, one below the other [ranks, in]: they multiply the same x."""
        return _joined([pair.a for pair in self.pairs], dim=0).to(dtype)


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([*tensors], dim=dim)


@dataclass(frozen=True)
class Again:
    """How x is computed again: it is `function` of `source`, but for its shape; what computed it has kept that."""

    function: Callable[[Tensor], Tensor]
    source: Tensor


def adapted_product(x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta], again: Again | None = None) -> Tensor:
    """x [rows, in] -> [rows, out] (arXiv:2106.09685, eq. 3).  With `again`, x is not kept for the backward call."""
    tensors = [tensor for delta in deltas for pair in delta.pairs for tensor in (pair.a, pair.b)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *tensors)):
        return _AdaptedProduct.apply(x, frozen, deltas, again, *tensors)
    return _forward(x, frozen, deltas)[0]


def _forward(x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta]) -> tuple[Tensor, list[Tensor]]:
    # scaled where it is narrowest
    narrows = [times_transposed(x[delta.rows], delta.a(x.dtype)).mul_(delta.scale) for delta in deltas]
    additions = [
        Addition(delta.rows, pair.columns, narrow[:, ranks], pair.b.to(x.dtype))
        for delta, narrow in zip(deltas, narrows, strict=True)
        for pair, ranks in zip(delta.pairs, delta.ranks, strict=True)
    ]
    return frozen.product(x, additions), narrows


class _AdaptedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, frozen: FrozenProduct, deltas: Sequence[Delta], again: Again | None, *_: Tensor
    ) -> Tensor:
        y, narrows = _forward(x, frozen, deltas)
        again = again if again and again.source.requires_grad else None  # else nobody keeps the source
        ctx.frozen, ctx.deltas, ctx.again = frozen, deltas, again.function if again else None
        kept = again.source.detach() if again else x
        ctx.save_for_backward(*([kept, *narrows] if deltas else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.deltas:
            return ctx.frozen.product_with_transposed(gradient), None, None, None
        kept, *narrows = ctx.saved_tensors
        x = ctx.again(kept).view(len(gradient), -1) if ctx.again else kept
        of_tensors: list[Tensor | None] = []
        additions: list[Addition] = []
        for delta, narrow in zip(ctx.deltas, narrows, strict=True):
            above = [contiguous_where_copied(gradient[delta.rows, pair.columns]) for pair in delta.pairs]
            narrow_parts = [
                times_transposed(part, pair.b.to(x.dtype).t()) for part, pair in zip(above, delta.pairs, strict=True)
            ]
            of_narrow = _joined(narrow_parts, dim=1).mul_(delta.scale)
            additions.append(Addition(delta.rows, ALL, of_narrow, delta.a(x.dtype).t()))
            of_tensors.extend(_of_pairs(delta, x[delta.rows], narrow, of_narrow, above))
        of_x = ctx.frozen.product_with_transposed(gradient, additions) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, *of_tensors


def _of_pairs(
    delta: Delta, x: Tensor, narrow: Tensor, of_narrow: Tensor, above: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of a and b of every pair."""
    if not delta.pairs[0].a.requires_grad:
        return [None] * (2 * len(delta.pairs))
    of_a = times_transposed(of_narrow.t(), x.t())
    found: list[Tensor | None] = []
    for pair, ranks, part in zip(delta.pairs, delta.ranks, above, strict=True):
        found.append(of_a[ranks].to(pair.a.dtype))
        # so and not part.t() @ narrow: few rows and many columns are multiplied faster than the other way round
        found.append(times_transposed(narrow[:, ranks].t(), part.t()).t().to(pair.b.dtype).contiguous())
    return found
