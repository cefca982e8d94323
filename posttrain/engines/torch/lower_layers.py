"""The layers below an adapter, computed once per sequence instead of once per epoch.

An adapter on the upper layers only (`LoRA.layers` below 1) leaves what enters its lowest layer as it is in the base
model.  Those hidden states are kept and fed in where the adapter begins: the same numbers, and an epoch costs the
upper layers alone.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.types import Tokens

MOST_BYTES = 2**30
"""Of hidden states kept; beyond it the oldest go.  Enough for 4,000 rows of 100 tokens of a model of width 576."""


def layer_number(path: str) -> int:
    """The decoder layer that a module called `model.layers.15.mlp.up_proj` belongs to; 0 outside of them."""
    found = re.search(r"\.(\d+)\.", path)
    return int(found.group(1)) if found else 0


class _Call(threading.local):
    """What is done in the forward calls of one thread."""

    leave: int | None = None
    left: Tensor | None = None
    enter: tuple[int, Tensor] | None = None


class LowerLayers:
    """Lets a forward call of `body` leave before a layer, or enter at one.

    `works(depth)` tries it: where a model cannot be entered, everything is computed from the bottom.
    """

    def __init__(self, body: Any, works: Callable[[int], bool]) -> None:
        self.works: dict[int, bool] = {}
        self._try = works
        self.kept: OrderedDict[tuple[int, Tokens], Tensor] = OrderedDict()
        self.owners: dict[tuple[int, Tokens], set[str]] = {}
        self.bytes = 0
        self._call, self._lock = _Call(), threading.Lock()
        count = int(body.config.get_text_config().num_hidden_layers)
        lists = [module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
        self.layers = lists[0] if lists else nn.ModuleList()
        for number, layer in enumerate(self.layers):
            layer.forward = self._gate(number, layer.forward)

    def _gate(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def gated(hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
            call = self._call
            if call.leave is not None and number >= call.leave:
                if number == call.leave:
                    call.left = hidden_states
                return hidden_states
            if call.enter is not None and number <= call.enter[0]:
                if number < call.enter[0]:
                    return hidden_states
                hidden_states = call.enter[1]
            return forward(hidden_states, *arguments, **named)

        return gated

    def leave(self, number: int, call: Callable[[], Any]) -> Tensor:
        """What enters layer `number` in a forward call: hidden states [1, tokens, hidden], to train on as well."""
        self._call.leave = number
        try:
            with torch.inference_mode(False), torch.no_grad():
                call()
        finally:
            self._call.leave = None
        left, self._call.left = self._call.left, None
        if left is None:
            raise RuntimeError(f"the model has no layer {number}")
        return left

    @contextmanager
    def entered(self, at: tuple[int, Tensor] | None) -> Iterator[None]:
        """Forward calls inside begin at a layer, with hidden states [1, tokens, hidden]; None: from the bottom."""
        self._call.enter = at
        try:
            yield
        finally:
            self._call.enter = None

    def depth(self, paths: Iterable[str]) -> int:
        """How many of the lowest layers need not be computed for an adapter on the modules `paths`."""
        depth = min(map(layer_number, paths), default=0)
        if depth and depth not in self.works:
            self.works[depth] = self._try(depth)
        return depth if depth and self.works[depth] else 0

    def find(self, adapter: str, depth: int, tokens: Tokens) -> Tensor | None:
        """The hidden states [tokens, hidden] of a sequence, whichever adapter they were computed for."""
        with self._lock:
            states = self.kept.get((depth, tokens))
            if states is not None:
                self.owners[depth, tokens].add(adapter)
            return states

    def keep(self, adapter: str, depth: int, tokens: Tokens, states: Tensor) -> None:
        """Keeps the hidden states [tokens, hidden] of a sequence until all adapters are forgotten that asked for it."""
        with self._lock:
            if (depth, tokens) not in self.kept:
                self.bytes += states.nbytes
            self.kept[depth, tokens] = states
            self.owners.setdefault((depth, tokens), set()).add(adapter)
            while self.bytes > MOST_BYTES and len(self.kept) > 1:
                self._drop(next(iter(self.kept)))

    def forget(self, adapter: str) -> None:
        """Drops what was kept for an adapter, and for no other."""
        with self._lock:
            for key, owners in [*self.owners.items()]:
                owners.discard(adapter)
                if not owners:
                    self._drop(key)

    def _drop(self, key: tuple[int, Tokens]) -> None:
        self.bytes -= self.kept.pop(key).nbytes
        del self.owners[key]
