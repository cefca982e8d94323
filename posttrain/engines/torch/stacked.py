"""The low-rank weights of several adapters of one layer in one tensor each: their products in one call.

For decoding steps in which several adapters write a few tokens each.  One after another, eight adapters would make
3,000 small products a step, which cost more than the step itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST_STACKED = 16
"""Adapters: what is stacked is held twice."""

FEW_ROWS = 8
"""Rows of one adapter: with more, its weights are better read once for all of them than copied for each."""


Weights = tuple[Tensor, Tensor, float]
"""A [rank, in], B [out, rank], and the scale of their product."""


class Stack:
    """Of one layer.  Made anew when any of its adapters has changed, which `stamps` tell."""

    def __init__(self) -> None:
        self.stamps: tuple[int, ...] = ()
        self._a = self._b = torch.empty(0)

    def update(self, stamps: tuple[int, ...], weights: Sequence[Weights | None], like: Tensor) -> None:
        """`weights` of each adapter, None of one that leaves this layer alone.  `like` has the precision of x."""
        if stamps == self.stamps:
            return
        given = [each for each in weights if each is not None]
        rank = max(len(a) for a, _, _ in given)
        a = like.new_zeros(len(weights), given[0][0].shape[1], rank)
        b = like.new_zeros(len(weights), rank, given[0][1].shape[0])
        for i, each in enumerate(weights):
            if each is not None:  # a lower rank is filled up with zeros, which add nothing
                own_a, own_b, scale = each
                a[i, :, : len(own_a)] = own_a.t() * scale
                b[i, : len(own_a)] = own_b.t()
        self._a, self._b, self.stamps = a, b, stamps

    def add(self, y: Tensor, x: Tensor, owners: Tensor) -> None:
        """Adds to y [rows, out] what adapters make of x [rows, in]; `owners` [rows] are their numbers in the stack."""
        narrow = torch.bmm(x[:, None], self._a[owners])
        y[:, None].baddbmm_(narrow, self._b[owners])
