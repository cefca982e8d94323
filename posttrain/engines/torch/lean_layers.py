"""The forward call of layers that are built as Llama's, when it is known what comes between their parts.

What a norm or a gate gives is not kept for the backward call, but computed again from what these keep themselves: of a
token, a third less is kept, for a hundredth of a step.  Of the last layer, only those tokens go on from its attention
whose hidden state is wanted: training and scoring want what precedes a trained token, a few of a prompt that is much
longer than its answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.adapted_product import Again
from posttrain.engines.torch.attention import Layout
from posttrain.engines.torch.llama_layers import LlamaLayer, llama_layers

ROUNDING = 1e-6
"""Relative: the same operations in the same order."""


def replace_layers(body: Any, states: Callable[[], Tensor]) -> None:
    """Replaces the forward calls of a network's layers where all are built as Llama's, and `states`, which runs the
    network, gives the same with them."""
    layers = llama_layers(body)
    if not layers:
        return
    expected = states()
    lean = [LeanLayer(layer, last=layer is layers[-1]) for layer in layers]
    for each in lean:
        each.layer.module.forward = each
    try:
        difference = (states() - expected).float().norm() / expected.float().norm()
        right = bool(difference <= ROUNDING)
    except (RuntimeError, TypeError, AttributeError, LookupError, ValueError):  # of layers that are otherwise
        right = False
    if not right:  # they do more between their parts
        for each in reversed(lean):
            each.layer.module.forward = each.plain


class LeanLayer:
    """The forward call of a layer; the last gives those hidden states that a layout wants, or all."""

    def __init__(self, layer: LlamaLayer, *, last: bool) -> None:
        self.layer, self.last, self.bank = layer, last, layer.attention.joined.bank
        self.plain: Callable[..., Tensor] = layer.module.forward

    def __call__(
        self, hidden_states: Tensor, *_: Any, layout: Layout, position_embeddings: tuple[Tensor, Tensor], **__: Any
    ) -> Tensor:
        """Hidden states [1, tokens, hidden] -> [1, tokens or as many as are wanted, hidden]."""
        layer, wanted = self.layer, getattr(layout, "wanted", None)
        normed = layer.before(hidden_states)
        seen = layer.attention.seen(normed, position_embeddings, layout, Again(layer.before, hidden_states))
        if not self.last or wanted is None:
            return self._widened(hidden_states + layer.attention.module.o_proj(seen))
        rows = torch.tensor(wanted, dtype=torch.int64, device=hidden_states.device)
        with self._acting_on(wanted):
            return self._widened(hidden_states[:, rows] + layer.attention.module.o_proj(seen[:, rows]))

    def _widened(self, x: Tensor) -> Tensor:
        between = self.layer.between
        return x + self.layer.wide(between(x), Again(between, x))

    @contextmanager
    def _acting_on(self, wanted: Sequence[int]) -> Iterator[None]:
        """Adapters act on those of their tokens that go on, which are in order."""
        spans = [(adapter.name, start, end) for adapter, start, end in self.bank.acting]
        self.bank.act((name, bisect_left(wanted, start), bisect_left(wanted, end)) for name, start, end in spans)
        try:
            yield
        finally:
            self.bank.act(spans)
