"""The last layer of a decoder, for those tokens alone whose hidden state is wanted: the others are only attended to.

Training and scoring want what precedes a trained token: of a prompt that is much longer than its answer, a few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.attention import Layout
from posttrain.engines.torch.llama_layers import LlamaLayer, llama_layers


def shorten_last_layer(body: Any, right: Callable[[], bool]) -> None:
    """Replaces the last layer of a network where it is built as Llama's, and what is wanted comes out `right`."""
    layers = llama_layers(body)
    if not layers:
        return
    plain, layers[-1].module.forward = layers[-1].module.forward, LastLayer(layers[-1])
    try:
        if right():
            return
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError, KeyError):  # of a model that is otherwise
        pass
    layers[-1].module.forward = plain


class LastLayer:
    """The forward call of the last layer, which gives all hidden states or those that a layout wants."""

    def __init__(self, layer: LlamaLayer) -> None:
        self.layer, self.bank = layer, layer.attention.joined.bank
        self.plain: Callable[..., Tensor] = layer.module.forward

    def __call__(self, hidden_states: Tensor, *arguments: Any, layout: Layout, **named: Any) -> Tensor:
        """Hidden states [1, tokens, hidden] -> [1, tokens or as many as are wanted, hidden]."""
        wanted = getattr(layout, "wanted", None)
        if wanted is None:
            return self.plain(hidden_states, *arguments, layout=layout, **named)
        attention, rows = self.layer.attention, torch.tensor(wanted, dtype=torch.int64, device=hidden_states.device)
        seen = attention.seen(self.layer.before(hidden_states), named["position_embeddings"], layout)
        with self._acting_on(wanted):
            y = hidden_states[:, rows] + attention.module.o_proj(seen[:, rows])
            return y + self.layer.wide(self.layer.between(y))

    @contextmanager
    def _acting_on(self, wanted: list[int]) -> Iterator[None]:
        """Adapters act on those of their tokens that go on, which are in order."""
        spans = [(adapter.name, start, end) for adapter, start, end in self.bank.acting]
        self.bank.act((name, bisect_left(wanted, start), bisect_left(wanted, end)) for name, start, end in spans)
        try:
            yield
        finally:
            self.bank.act(spans)
