"""Prompts are read: each distinct prefix once, and the layers below all adapters once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posttrain.engines.torch.adapters import BASE
from posttrain.engines.torch.attention import ForestLayout, KeysValues
from posttrain.engines.torch.cache import Room, Trunk, length
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.forest import Forest, plant, share_out

if TYPE_CHECKING:
    from posttrain.engines.torch.network import Network

Read = tuple[Tensor, list[list[KeysValues]]]
"""(Hidden states at the last tokens of each prompt, one below the other; keys and values as [layer][prompt].)"""


def prefill(
    network: Network,
    prompts: Sequence[Sequence[int]],
    adapters: Sequence[str],
    trunk: Trunk | None,
    ends: Sequence[int],
    room: Room | None = None,
) -> Read:
    """Each prompt through its adapter, behind the trunk; hidden states [sum of ends, hidden] at its last `ends[i]`.

    Keys and values go to slots where there is `room`, one for each prompt, and are not given back; these prompts are of
    one adapter, and what they may share is read for each.
    """
    shares = share_out([[prompt] for prompt in prompts], network.threads.most)

    def read(calls: Sequence[Sequence[int]]) -> list[Read]:
        found = []
        for call in calls:
            some, own, last = [prompts[i] for i in call], [adapters[i] for i in call], [ends[i] for i in call]
            if room:
                found.append(_read_in_place(network, some, own[0], trunk, last, Room(room.slots, room.first + call[0])))
            else:
                found.append(_read(network, some, own, trunk, last))
        return found

    calls = network.threads.calls(shares, apart=network.deterministic)
    return _joined(chain(*network.threads.side_by_side([partial(read, some) for some in calls])))


def _read(
    network: Network,
    prompts: Sequence[Sequence[int]],
    adapters: Sequence[str],
    trunk: Trunk | None,
    ends: Sequence[int],
) -> Read:
    """In one call."""
    forest = plant(prompts, adapters, first_position=length(trunk))
    layout = ForestLayout(forest, network.device, trunk=trunk.layers if trunk else (), store=True)
    last = [place for i, end in enumerate(ends) for place in forest.index(i)[-end:]]
    several = len({*adapters}) > 1
    entering: tuple[int, Tensor] | None = None
    below: list[list[KeysValues]] = []
    if several and trunk is None:
        entering, below = _once_for_all(network, prompts, forest, adapters)
    hidden = network.written(forest.tokens, layout, forest.adapters, last, entering)
    if several and not hidden.isfinite().all():  # one that has diverged spoils its neighbours
        alone = zip(prompts, adapters, ends, strict=True)
        return _joined(_read(network, [prompt], [adapter], trunk, [end]) for prompt, adapter, end in alone)
    return hidden, [*below, *_by_prompt(network, forest, layout)]


def _read_in_place(
    network: Network,
    prompts: Sequence[Sequence[int]],
    adapter: str,
    trunk: Trunk | None,
    ends: Sequence[int],
    room: Room,
) -> Read:
    """In one call, as a step of decoding reads what it is fed."""
    counts = [len(prompt) for prompt in prompts]
    layout = DecodingLayout(room.slots, room.first, [0] * len(prompts), counts, [trunk] * len(prompts), network.device)
    last = [i for count, end in zip(accumulate(counts), ends, strict=True) for i in range(count - end, count)]
    return network.written([*chain(*prompts)], layout, [(adapter, 0, sum(counts))], last), []


def _once_for_all(
    network: Network, prompts: Sequence[Sequence[int]], forest: Forest, adapters: Sequence[str]
) -> tuple[tuple[int, Tensor] | None, list[list[KeysValues]]]:
    """(The lowest layer that one of the adapters acts on, and what enters it [tokens of the forest, hidden]; keys and
    values below it), read as of the base, in which prompts of different adapters are shared; (None, []) where none are,
    or nothing is below."""
    depth = network.depth(adapters)
    shared = plant(prompts, [BASE] * len(prompts)) if depth else forest
    if len(shared.tokens) == len(forest.tokens):
        return None, []
    states, layout = network.below(depth, shared)
    sources = torch.empty(len(forest.tokens), dtype=torch.int64)
    for i in range(len(forest.spans)):
        sources[forest.index(i)] = torch.tensor(shared.index(i))
    return (depth, states[sources.to(states.device)]), _by_prompt(network, shared, layout)


def _by_prompt(network: Network, forest: Forest, layout: ForestLayout) -> list[list[KeysValues]]:
    places = [_place(network, forest, i) for i in range(len(forest.spans))]
    return [[(k[:, :, place], v[:, :, place]) for place in places] for k, v in layout.kept]


def _place(network: Network, forest: Forest, sequence: int) -> slice | Tensor:
    """Where a sequence lies in the layout: in one piece, which is not copied, if it shares nothing."""
    spans = forest.spans[sequence]
    return slice(*spans[0]) if len(spans) == 1 else torch.tensor(forest.index(sequence), device=network.device)


def _joined(parts: Iterable[Read]) -> Read:
    """What several calls gave as that of one."""
    hidden, keys_values = zip(*parts, strict=True)
    return torch.cat(hidden), [list(chain(*layer)) for layer in zip(*keys_values, strict=True)]
