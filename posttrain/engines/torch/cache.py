"""Where keys and values live while completions are being written.

Each completion under way owns a *slot*: its prompt beyond the shared trunk, and what it has written.  A *trunk* is
a prefix that several prompts share (instructions, demonstrations); it is stored once and seen by all of them.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.engines.torch.attention import KeysValues
from posttrain.engines.torch.forest import common_prefix

SHORTEST_TRUNK = 24
"""Shared prefixes shorter than this are not worth a trunk."""

MOST_TRUNKS = 8

WORTH_GIVING_BACK = 256 * 2**20
"""Bytes of slots that are given back to the system when nothing is under way; a few are soon taken again."""


@dataclass(eq=False)
class Trunk:
    """A cached prefix: the keys and values of `tokens` in every layer."""

    tokens: tuple[int, ...]
    layers: list[KeysValues]


class TrunkCache:
    """The last few trunks, by adapter and version: trained weights make old keys and values wrong."""

    def __init__(self) -> None:
        self.trunks: OrderedDict[tuple[str, int, tuple[int, ...]], Trunk] = OrderedDict()
        self.latest: dict[tuple[str, int], tuple[int, ...]] = {}

    def find(self, owner: tuple[str, int], prompt: Sequence[int]) -> Trunk | None:
        """The longest cached trunk that begins `prompt` and leaves at least its last token to be computed."""
        best = None
        for (adapter, version, tokens), trunk in self.trunks.items():
            fits = (adapter, version) == owner and len(tokens) < len(prompt) and tuple(prompt[: len(tokens)]) == tokens
            if fits and (best is None or len(tokens) > len(best.tokens)):
                best = trunk
        if best is not None:
            self.trunks.move_to_end((*owner, best.tokens))
        return best

    def worth_caching(self, owner: tuple[str, int], prompts: Sequence[tuple[int, ...]]) -> int:
        """How many leading tokens of these prompts deserve a trunk: what they share with one another, or, for a
        single prompt, with the one before it.  0: none."""
        previous = self.latest.get(owner, ())
        self.latest = {key: value for key, value in self.latest.items() if key[0] != owner[0]} | {owner: prompts[-1]}
        others = prompts[1:] if len(prompts) > 1 else [previous]
        shared = min(common_prefix(prompts[0], other) for other in others)
        shared = min(shared, min(len(prompt) for prompt in prompts) - 1)
        return shared if shared >= SHORTEST_TRUNK else 0

    def add(self, owner: tuple[str, int], trunk: Trunk) -> None:
        """Keeps a trunk; drops those of older versions of the adapter, and the least used beyond the limit."""
        for key in [key for key in self.trunks if key[0] == owner[0] and key[1] != owner[1]]:
            del self.trunks[key]
        self.trunks[(*owner, trunk.tokens)] = trunk
        while len(self.trunks) > MOST_TRUNKS:
            self.trunks.popitem(last=False)

    def forget(self, adapter: str) -> None:
        """Drops what is kept of an adapter."""
        for key in [key for key in self.trunks if key[0] == adapter]:
            del self.trunks[key]
        self.latest = {owner: prompt for owner, prompt in self.latest.items() if owner[0] != adapter}


def room(tokens: int) -> int:
    """What a slot for so many tokens has room for: few sizes, so that it seldom grows."""
    return -(-tokens // 64) * 64


class SlotCache:
    """Keys and values of the completions under way: per layer [slots, key-value heads, capacity, size]."""

    def __init__(self) -> None:
        self.layers: list[KeysValues] = []

    @property
    def capacity(self) -> int:
        """Tokens that each slot has room for."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def reserve(self, slots: int, capacity: int, like: Sequence[KeysValues]) -> None:
        """Grows, keeping what is there, to at least `slots` x `capacity`."""
        have_slots, have_capacity = len(self.layers[0][0]) if self.layers else 0, self.capacity
        if slots <= have_slots and capacity <= have_capacity:
            return
        slots, capacity = max(slots, have_slots), max(room(capacity), have_capacity)
        old = self.layers
        self.layers = [
            (
                _grown(k, old[i][0] if old else None, slots, capacity),
                _grown(v, old[i][1] if old else None, slots, capacity),
            )
            for i, (k, v) in enumerate(like)
        ]

    def write(self, slot: int, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes keys and values [key-value heads, tokens, size] to the beginning of a slot."""
        self.layers[layer][0][slot, :, : keys.shape[1]] = keys
        self.layers[layer][1][slot, :, : values.shape[1]] = values

    def copy(self, sources: Sequence[int], destinations: Sequence[int], length: int) -> None:
        """Copies the first `length` tokens of slots to others, all at once: a permutation is one, too."""
        for keys, values in self.layers:
            keys[destinations, :, :length] = keys[sources, :, :length]
            values[destinations, :, :length] = values[sources, :, :length]

    def release(self) -> None:
        held = sum(tensor.nbytes for layer in self.layers for tensor in layer)
        self.layers = []
        if held >= WORTH_GIVING_BACK:
            _give_back()


def _give_back() -> None:
    """Lets the system have what was freed: glibc keeps it for the thread that did (80 ms for 1.2 GB)."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _grown(like: Tensor, old: Tensor | None, slots: int, capacity: int) -> Tensor:
    new = torch.zeros(slots, like.shape[1], capacity, like.shape[3], dtype=like.dtype, device=like.device)
    if old is not None:
        new[: old.shape[0], :, : old.shape[2]] = old
    return new
