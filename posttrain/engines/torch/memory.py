"""How many tokens fit into memory.  What training keeps of one is measured on the network at hand: every architecture
keeps something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from posttrain.engines.torch.forest import plant
from posttrain.engines.torch.network import PROBE, Network
from posttrain.types import LoRA

ACTIVATIONS_SHARE = 0.4
"""Share of the free memory that the activations of one micro-batch may take."""

LEAST_TRAINED, MOST_TRAINED = 512, 16_384
"""Tokens of a micro-batch: fewer waste the weights that are read for them, more gain nothing."""

SLOTS_SHARE = 0.1
"""Share of the free memory that the keys and values of completions under way may take."""

LEAST_HELD, MOST_HELD = 2048, 24_576
"""Tokens of completions under way; the most on a CPU, where more are written no faster."""

MOST_READ = 4096
"""Tokens that are read in one call, of prompts and of what is only scored: of each, little is kept."""

PROBED = 32
"""Tokens of the shorter of two calls whose difference is measured."""


def free_bytes(device: torch.device) -> int:
    """Of the memory that a device computes in."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    kept_for_later = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0] + kept_for_later)


def trained_tokens(network: Network) -> int:
    """How many tokens a micro-batch of training may have.  Runs the network: call it from the torch thread only.

    A power of two, so that a run is cut alike when it is resumed with a little less memory free.
    """
    fitting = int(free_bytes(network.device) * ACTIVATIONS_SHARE / kept_bytes(network))
    return max(LEAST_TRAINED, min(MOST_TRAINED, 1 << (fitting.bit_length() - 1 if fitting else 0)))


def kept_bytes(network: Network) -> int:
    """What is kept of one token for the backward call, in all layers, each with an adapter of the usual rank."""
    bank = network.bank
    probe = bank.create(PROBE, LoRA(), seed=0)
    try:
        fewer, more = (_kept_of(network, probe.name, count) for count in (PROBED, 2 * PROBED))
    finally:
        del bank.adapters[probe.name]
        bank.act([])
    return (more - fewer) // PROBED


def _kept_of(network: Network, adapter: str, count: int) -> int:
    known = int(network.config.vocab_size)
    with torch.enable_grad(), _counting() as kept:
        network.forest(plant([[i % known for i in range(count)]], [adapter]))
    return sum(kept.values())


@contextmanager
def _counting() -> Iterator[dict[int, int]]:
    """Bytes by the address of what is saved for a backward call.  Views share what they are views of."""
    kept: dict[int, int] = {}
    alive = []  # else an address might come again

    def save(tensor: Tensor) -> None:  # gives nothing back, for no backward call asks for it: a graph that holds its
        storage = tensor.untyped_storage()  # own tensors in Python is never let go of
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(storage)

    with saved_tensors_hooks(save, lambda nothing: nothing):
        yield kept


def held_tokens(network: Network) -> int:
    """How many tokens of completions under way may have their keys and values held."""
    fitting = int(free_bytes(network.device) * SLOTS_SHARE / key_value_bytes(network))
    return max(LEAST_HELD, fitting if network.device.type == "cuda" else min(MOST_HELD, fitting))


def key_value_bytes(network: Network) -> int:
    """Of one token's keys and values in all layers."""
    config = network.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * 2 * heads * size * network.model.dtype.itemsize)
