"""The adapter bank: many LoRA adapters (arXiv:2106.09685) on one frozen base, several acting in one forward call."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from posttrain.engines.stepping import take_step
from posttrain.engines.torch import onednn
from posttrain.engines.torch.adapted_product import (
    ALL,
    Again,
    Delta,
    FrozenProduct,
    Pair,
    PlainProduct,
    adapted_product,
)
from posttrain.engines.torch.grouped import Group, Groups
from posttrain.engines.torch.int8 import Int8Product
from posttrain.engines.torch.lower_layers import layer_number
from posttrain.engines.torch.rounded import RoundedProduct
from posttrain.optimisers import Optimiser
from posttrain.types import LoRA, Metrics, UserError

Precision = Literal["float32", "bfloat16", "int8"]

BASE = ""
"""The adapter name that means: the bare base model."""


_stamps = itertools.count(1)


def fresh_stamp() -> int:
    """A number that no weights had before: what caches of their keys and values go by."""
    return next(_stamps)


@dataclass
class Adapter:
    """One adapter: for each adapted layer A [rank, in] and B [out, rank].

    `version` counts optimiser steps; `stamp` changes whenever the weights do, and never comes again.
    """

    name: str
    lora: LoRA
    tensors: dict[str, tuple[Tensor, Tensor]]
    version: int = 0
    stamp: int = field(default_factory=fresh_stamp)
    optimiser: torch.optim.Optimizer | None = None

    @property
    def scale(self) -> float:
        return self.lora.alpha / self.lora.rank

    def parameters(self) -> list[Tensor]:
        """In the order of the layers' names, so that saved optimiser state finds its tensors again."""
        return [tensor for path in sorted(self.tensors) for tensor in self.tensors[path]]

    def optim_step(self, settings: Optimiser) -> Metrics:
        """See stepping.take_step."""
        self.optimiser, metrics = take_step(self.parameters(), settings, self.optimiser)
        self.version += 1
        self.stamp = fresh_stamp()
        return metrics


class Gradient:
    """What one call of forward_backward adds to the gradient of an adapter, gathered from its `pieces`."""

    def __init__(self, pieces: int) -> None:
        self.missing = pieces
        self.sums: list[Tensor | None] = []

    def add(self, parts: Sequence[Sequence[Tensor | None]]) -> None:
        """Adds the gradient of the parts of one piece."""
        for more in parts:
            self.sums = [_sum(*pair) for pair in zip(self.sums, more, strict=True)] if self.sums else list(more)
        self.missing -= 1

    def reach(self, adapter: Adapter) -> None:
        """Adds all of it to the adapter's."""
        for parameter, total in zip(adapter.parameters(), self.sums, strict=True):
            parameter.grad = _sum(parameter.grad, total)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a.add_(b)


class FrozenLinear(nn.Module):
    """A frozen linear layer that can multiply in bfloat16 (fp32 in, fp32 out): 2.5 times as fast on CPUs that have it;
    or in 8 bits.

    The fp32 weight is kept, so that `bank.precision` can be changed from call to call.
    """

    def __init__(self, base: nn.Linear, bank: AdapterBank) -> None:
        super().__init__()
        self.base, self.bank = base, bank
        self._products: dict[Precision, FrozenProduct] = {
            "float32": onednn.OneDNNProduct(base) if onednn.suits(base.weight) else PlainProduct(base),
            "bfloat16": RoundedProduct(base),
            "int8": Int8Product(base),
        }

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return self.rows(x.reshape(-1, x.shape[-1])).contiguous().view(*x.shape[:-1], -1)

    def rows(self, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, out]."""
        return self.product(x, self.frozen(x.dtype))

    def frozen(self, dtype: torch.dtype) -> FrozenProduct:
        """How this layer multiplies numbers of a type now."""
        return self._products[self.bank.precision if dtype == torch.float32 else "float32"]

    def product(self, x: Tensor, frozen: FrozenProduct) -> Tensor:
        """x [rows, in] -> [rows, out]."""
        return adapted_product(x, frozen, [])


class AdaptedLinear(FrozenLinear):
    """A frozen linear layer, or several joined, to which the adapters add that act in this thread's forward call.

    `columns` says which of its outputs are whose, by the paths that adapters know.
    """

    def __init__(self, base: nn.Linear, columns: Mapping[str, slice], bank: AdapterBank) -> None:
        super().__init__(base, bank)
        self.columns = columns

    def rows(self, x: Tensor, again: Again | None = None) -> Tensor:
        """x [rows, in] -> [rows, out]; see adapted_product."""
        return self.product(x, self.frozen(x.dtype), again)

    def product(self, x: Tensor, frozen: FrozenProduct, again: Again | None = None) -> Tensor:
        acting = self.bank.acting
        if not (acting or x.requires_grad):
            return frozen.product(x)
        if group := self.bank.group:
            y = frozen.product(x)
            group.add(self.columns, x, y)
            return y
        deltas = [Delta(start, end, self.pairs(adapter), adapter.scale) for adapter, start, end in acting]
        return adapted_product(x, frozen, [delta for delta in deltas if delta.pairs], again)

    def pairs(self, adapter: Adapter) -> list[Pair]:
        """What an adapter adds here."""
        tensors = adapter.tensors
        return [Pair(*tensors[path], columns) for path, columns in self.columns.items() if path in tensors]


class AdapterBank:
    """The adapters of one network, by name.

    `precision` is that of the products with frozen weights; adapters, attention and norms are always fp32 on a CPU.
    """

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        self.precision = precision
        self.adapters: dict[str, Adapter] = {}
        self.groups = Groups()
        self._serial = itertools.count(1)
        self._call = threading.local()
        self.layers: dict[str, nn.Linear] = {}
        head = network.get_output_embeddings()  # type: ignore[operator]
        linears = [
            (path, module)
            for path, module in network.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        ]
        if not linears:
            raise UserError(
                f"{type(network).__name__} has no torch.nn.Linear layers to adapt",
                remedy="choose a model with plain linear layers (Llama, Qwen, Mistral, Gemma, SmolLM ...)",
            )
        for path, module in linears:
            parent, _, leaf = path.rpartition(".")
            self.layers[path] = module
            setattr(network.get_submodule(parent), leaf, AdaptedLinear(module, {path: ALL}, self))

    @property
    def acting(self) -> list[tuple[Adapter, int, int]]:
        """Who acts on which span of tokens in this thread's forward call."""
        return getattr(self._call, "acting", [])

    @property
    def group(self) -> Group | None:
        """All who act, where that is worth it."""
        return getattr(self._call, "group", None)

    def act(self, spans: Iterable[tuple[str, int, int]]) -> None:
        """Sets who acts on which span of tokens; contiguous, in order."""
        self._call.acting = [(self.get(name), start, end) for name, start, end in spans if name]
        self._call.group = self.groups.find(self._call.acting)

    def get(self, name: str) -> Adapter:
        """The adapter of this name.  Raises RuntimeError when it is gone."""
        if name not in self.adapters:
            raise RuntimeError(f"policy {name} was dropped")
        return self.adapters[name]

    def create(self, name: str, lora: LoRA, seed: int) -> Adapter:
        """A fresh adapter that changes nothing yet: A as in PEFT (Kaiming-uniform, a = sqrt 5), B zero."""
        lowest = self._lowest(lora)
        upper = {path: layer for path, layer in self.layers.items() if layer_number(path) >= lowest}
        _refuse_odd(lora, upper)
        chosen = {path: layer for path, layer in upper.items() if not lora.targets or _leaf(path) in lora.targets}
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for path, layer in chosen.items():
            bound = 1 / math.sqrt(layer.in_features)  # what kaiming_uniform_ with a = sqrt(5) comes to
            a = (torch.rand(lora.rank, layer.in_features, generator=generator) * 2 - 1) * bound
            b = torch.zeros(layer.out_features, lora.rank)
            device = layer.weight.device
            tensors[path] = (a.to(device).requires_grad_(), b.to(device).requires_grad_())
        return self.add(Adapter(name, lora, tensors))

    def _lowest(self, lora: LoRA) -> int:
        """The lowest layer that is adapted.  Raises UserError when the share of layers is none."""
        if not 0 < lora.layers <= 1:
            raise UserError(
                f"an adapter on {lora.layers:g} of the layers", place="LoRA layers", remedy="give a share: 0.5, or 1"
            )
        count = max(map(layer_number, self.layers)) + 1
        return count - max(1, round(lora.layers * count))

    def copy(self, source: str, name: str, *, trainable: bool) -> Adapter:
        """A copy of an adapter under a new name, without its optimiser state."""
        old = self.get(source)
        tensors = {
            path: (a.detach().clone().requires_grad_(trainable), b.detach().clone().requires_grad_(trainable))
            for path, (a, b) in old.tensors.items()
        }
        return self.add(Adapter(name, old.lora, tensors, old.version))

    def add(self, adapter: Adapter) -> Adapter:
        """Takes an adapter in, under a number beside its name when the name is taken."""
        wanted = adapter.name = adapter.name or "adapter"  # "" is the base
        while adapter.name in self.adapters:
            adapter.name = f"{wanted}-{next(self._serial)}"
        self.adapters[adapter.name] = adapter
        return adapter


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _refuse_odd(lora: LoRA, layers: Iterable[str]) -> None:
    """Raises UserError for an adapter that would change nothing, or less than was asked for."""
    if lora.rank < 1 or not 0 < lora.alpha < math.inf:
        raise UserError(
            f"an adapter of rank {lora.rank} and alpha {lora.alpha:g}",
            place="LoRA rank and alpha",
            remedy="give a rank of 1 or more, and an alpha above 0",
        )
    known = sorted({_leaf(path) for path in layers})
    if unknown := [target for target in lora.targets if target not in known]:
        raise UserError(
            f"no linear layer is called {' or '.join(unknown)}",
            place="LoRA targets",
            remedy=f"known: {', '.join(known)}",
        )
