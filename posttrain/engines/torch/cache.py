"""Where keys and values live while completions are being written.

Each completion under way owns a *slot*: its prompt beyond the shared trunk, and what it has written.  A *trunk* is
a prefix that several prompts share (instructions, demonstrations); it is stored once and seen by all of them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posttrain.engines.torch import heap
from posttrain.engines.torch.attention import KeysValues
from posttrain.engines.torch.forest import common_prefix

SHORTEST_TRUNK = 24
"""Shared prefixes shorter than this are not worth a trunk."""

MOST_TRUNKS = 8
"""Kept at once; and prompts of an adapter that are remembered, for one of them to be the beginning of the next."""

WORTH_GIVING_BACK = 64 * 2**20
"""Bytes of slots; when so many are released, there was much else that the heap still keeps, and it is given back."""

LARGE = 2**20
"""Bytes of a layer's keys from which on they are taken from the system: else each size that they outgrow stays with
this process, a hole that the next does not fit into."""


@dataclass(eq=False)
class Trunk:
    """A cached prefix: the keys and values of `tokens` in every layer."""

    tokens: tuple[int, ...]
    layers: list[KeysValues]


def length(trunk: Trunk | None) -> int:
    """Tokens of a trunk, if there is one."""
    return len(trunk.tokens) if trunk else 0


def grown(trunk: Trunk | None, tokens: tuple[int, ...], layers: Sequence[KeysValues]) -> tuple[Trunk, list[KeysValues]]:
    """A trunk of all `tokens`, of which an older one has the first ones and `layers` the keys and values of the others;
    and what these have beyond the tokens.  A copy: the others may be views of what other prompts have, too."""
    new = len(tokens) - length(trunk)
    parts = [*([trunk.layers] if trunk else []), [(keys[:, :, :new], values[:, :, :new]) for keys, values in layers]]
    own = [
        (torch.cat([keys for keys, _ in layer], dim=2), torch.cat([values for _, values in layer], dim=2))
        for layer in zip(*parts, strict=True)
    ]
    return Trunk(tokens, own), [(keys[:, :, new:], values[:, :, new:]) for keys, values in layers]


class TrunkCache:
    """The last few trunks, of `most_tokens` together but for a single one that is longer, by adapter and version:
    trained weights make old keys and values wrong."""

    def __init__(self, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self.trunks: OrderedDict[tuple[str, int, tuple[int, ...]], Trunk] = OrderedDict()
        self.latest: dict[tuple[str, int], tuple[tuple[int, ...], ...]] = {}

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
        single prompt, the most that it shares with one of the last before it.  0: none."""
        previous, new = self.latest.get(owner, ()), tuple(prompts[-MOST_TRUNKS:])
        # a prompt that has grown, as a conversation does, takes the place of what it was
        others = tuple(old for old in previous if not any(prompt[: len(old)] == old for prompt in new))
        self.latest = {key: value for key, value in self.latest.items() if key[0] != owner[0]}
        self.latest[owner] = (*others, *new)[-MOST_TRUNKS:]
        if len(prompts) > 1:
            return worth_sharing(prompts)
        return max((worth_sharing((*prompts, old)) for old in previous), default=0)

    def add(self, owner: tuple[str, int], trunk: Trunk, base: Trunk | None) -> None:
        """Keeps a trunk; drops those of older versions of the adapter, and the least used beyond the limits: first the
        `base` from which it has grown."""
        for key in [key for key in self.trunks if key[0] == owner[0] and key[1] != owner[1]]:
            del self.trunks[key]
        self.trunks[(*owner, trunk.tokens)] = trunk
        if base:
            self.trunks.move_to_end((*owner, base.tokens), last=False)
        while len(self.trunks) > 1 and (len(self.trunks) > MOST_TRUNKS or self._tokens() > self.most_tokens):
            self.trunks.popitem(last=False)

    def _tokens(self) -> int:
        return sum(len(trunk.tokens) for trunk in self.trunks.values())

    def forget(self, adapter: str) -> None:
        """Drops what is kept of an adapter."""
        for key in [key for key in self.trunks if key[0] == adapter]:
            del self.trunks[key]
        self.latest = {owner: prompt for owner, prompt in self.latest.items() if owner[0] != adapter}


def worth_sharing(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens of different prompts go into a trunk: what all share, but for a last one to be computed
    of each, if it is long enough.  0: none."""
    first = prompts[0]
    shared = min(len(first) - 1, *(min(common_prefix(first, other), len(other) - 1) for other in prompts[1:]))
    return shared if shared >= SHORTEST_TRUNK else 0


def room(tokens: int) -> int:
    """What a slot for so many tokens has room for: few sizes, so that it seldom grows."""
    return -(-tokens // 16) * 16


def roomy(tokens: int, most: int) -> int:
    """So many tokens and a quarter to spare, of the `most` that there may be: to grow is to copy all slots."""
    return max(tokens, min(most, tokens * 5 // 4))


class SlotCache:
    """Keys and values of the completions under way: per layer [slots, key-value heads, capacity, size]."""

    def __init__(self) -> None:
        self.layers: list[KeysValues] = []

    @property
    def capacity(self) -> int:
        """Tokens that each slot has room for."""
        return self.layers[0][0].shape[2] if self.layers else 0

    @property
    def slots(self) -> int:
        return len(self.layers[0][0]) if self.layers else 0

    def reserve(self, slots: int, capacity: int, like: Sequence[KeysValues] = ()) -> None:
        """Grows to at least `slots` x `capacity`, keeping what is in the first `slots`; `like` gives the layers' shapes
        to a cache that has none.  When the capacity grows, slots beyond those asked for are let go of."""
        if not self.layers:
            self.layers = [(keys[:0, :, :0], values[:0, :, :0]) for keys, values in like]
        capacity = max(room(capacity), self.capacity)
        if capacity > self.capacity or slots > self.slots:
            self._resize(slots, capacity)

    def shrink(self, slots: int, capacity: int) -> None:
        """Keeps `slots` x `capacity` only, when that is half the capacity or less."""
        if 2 * room(capacity) <= self.capacity:
            self._resize(slots, room(capacity))

    def _resize(self, slots: int, capacity: int) -> None:
        for i, (keys, values) in enumerate(self.layers):  # one by one: of one layer at most, old and new are held
            self.layers[i] = (_resized(keys, slots, capacity), _resized(values, slots, capacity))

    def write(self, slot: int, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes keys and values [key-value heads, tokens, size] to the beginning of a slot."""
        self.layers[layer][0][slot, :, : keys.shape[1]] = keys
        self.layers[layer][1][slot, :, : values.shape[1]] = values

    def copy(self, sources: Sequence[int], destinations: Sequence[int], length: int) -> None:
        """Copies the first `length` tokens of slots to others, all at once: a permutation is one, too."""
        for keys, values in self.layers:
            keys[destinations, :, :length] = keys[sources, :, :length]
            values[destinations, :, :length] = values[sources, :, :length]

    def wipe(self) -> None:
        """Leaves nothing that is not a number: what lies unused in a slot is masked, and 0 times infinity is none."""
        for layer in self.layers:
            for tensor in layer:
                tensor.nan_to_num_(0.0, 0.0, 0.0)

    def release(self) -> None:
        held = sum(tensor.nbytes for layer in self.layers for tensor in layer if tensor.is_cpu)
        self.layers = []
        if held >= WORTH_GIVING_BACK:
            heap.give_back()


class Room(NamedTuple):
    """Slots from the `first` on that wait to be written."""

    slots: SlotCache
    first: int


def _resized(old: Tensor, slots: int, capacity: int) -> Tensor:
    shape = (slots, old.shape[1], capacity, old.shape[3])
    size = math.prod(shape) * old.itemsize
    if old.device.type == "cpu" and size >= LARGE:
        new = heap.huge_pages(size).view(old.dtype).view(shape)
    else:
        new = old.new_zeros(shape)
    slots, capacity = min(slots, old.shape[0]), min(capacity, old.shape[2])
    new[:slots, :, :capacity] = old[:slots, :, :capacity]
    return new
