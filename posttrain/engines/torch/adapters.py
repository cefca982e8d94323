"""The adapter bank: many LoRA adapters (arXiv:2106.09685) on one frozen base, several acting in one forward call."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posttrain.runs import disk_errors
from posttrain.types import LoRA, UserError

Precision = Literal["float32", "bfloat16"]

UNREAD = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "fan_in_fan_out")
"""What a PEFT configuration may ask for that this engine does not compute."""

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
    optimiser: torch.optim.AdamW | None = None

    @property
    def scale(self) -> float:
        return self.lora.alpha / self.lora.rank

    def parameters(self) -> list[Tensor]:
        """In the order of the layers' names, so that saved optimiser state finds its tensors again."""
        return [tensor for path in sorted(self.tensors) for tensor in self.tensors[path]]


class FrozenLinear(nn.Module):
    """A frozen linear layer that can multiply in bfloat16 (fp32 in, fp32 out): 2.5 times as fast on CPUs that have it.

    The fp32 weight is kept, so that `bank.precision` can be changed from call to call.
    """

    def __init__(self, base: nn.Linear, bank: AdapterBank) -> None:
        super().__init__()
        self.base, self.bank = base, bank
        self.rounded: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.bank.precision == "float32" or x.dtype != torch.float32:
            return self.base(x)
        if self.rounded is None:
            bias = self.base.bias
            with torch.inference_mode(False):  # whoever calls first, training must be able to use it too
                self.rounded = (self.base.weight.bfloat16(), None if bias is None else bias.bfloat16())
        return nn.functional.linear(x.bfloat16(), *self.rounded).float()


class AdaptedLinear(FrozenLinear):
    """A frozen linear layer that adds, span by span, the delta of the adapter acting there."""

    def __init__(self, base: nn.Linear, path: str, bank: AdapterBank) -> None:
        super().__init__(base, bank)
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        """x [1, tokens, in] -> [1, tokens, out]."""
        y = super().forward(x)
        acting = self.bank.acting
        if all(adapter is None or self.path not in adapter.tensors for adapter, _, _ in acting):
            return y
        if len(acting) == 1:
            return self._with_delta(x, y, acting[0][0])
        lengths = [end - start for _, start, end in acting]
        pieces = zip(x.split(lengths, dim=1), y.split(lengths, dim=1), acting, strict=True)
        return torch.cat(
            [self._with_delta(part_x, part_y, adapter) for part_x, part_y, (adapter, _, _) in pieces], dim=1
        )

    def _with_delta(self, x: Tensor, y: Tensor, adapter: Adapter | None) -> Tensor:
        if adapter is None or self.path not in adapter.tensors:
            return y
        a, b = adapter.tensors[self.path]
        # scaled where it is narrowest, and added by the product itself: no more passes over y than needed
        narrow = nn.functional.linear(x.reshape(-1, x.shape[-1]), a.to(x.dtype)) * adapter.scale
        return torch.addmm(y.reshape(-1, y.shape[-1]), narrow, b.to(x.dtype).t()).view(y.shape)


class AdapterBank:
    """The adapters of one network, by name.  `acting` says who acts where in the forward call at hand.

    `precision` is that of the products with frozen weights; adapters, attention and norms are always fp32 on a CPU.
    """

    def __init__(self, network: nn.Module, precision: Precision = "float32") -> None:
        self.precision = precision
        self.adapters: dict[str, Adapter] = {}
        self.acting: list[tuple[Adapter | None, int, int]] = []
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
            setattr(network.get_submodule(parent), leaf, AdaptedLinear(module, path, self))

    def act(self, spans: Iterable[tuple[str, int, int]]) -> None:
        """Sets who acts on which span of tokens; contiguous, in order."""
        self.acting = [(self.adapters[name] if name else None, start, end) for name, start, end in spans]

    def create(self, name: str, lora: LoRA, seed: int) -> Adapter:
        """A fresh adapter that changes nothing yet: A as in PEFT (Kaiming-uniform, a = sqrt 5), B zero."""
        chosen = {path: layer for path, layer in self.layers.items() if _targeted(path, lora)}
        if not chosen:
            leaves = sorted({path.rpartition(".")[2] for path in self.layers})
            raise UserError(
                f"no linear layer is called any of {', '.join(lora.targets)}",
                place="LoRA targets",
                remedy=f"known: {', '.join(leaves)}",
            )
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for path, layer in chosen.items():
            bound = 1 / math.sqrt(layer.in_features)  # what kaiming_uniform_ with a = sqrt(5) comes to
            a = (torch.rand(lora.rank, layer.in_features, generator=generator) * 2 - 1) * bound
            b = torch.zeros(layer.out_features, lora.rank)
            device = layer.weight.device
            tensors[path] = (a.to(device).requires_grad_(), b.to(device).requires_grad_())
        return self._add(Adapter(name, lora, tensors))

    def copy(self, source: str, name: str, *, trainable: bool) -> Adapter:
        """A copy of an adapter under a new name, without its optimiser state."""
        old = self.adapters[source]
        tensors = {
            path: (a.detach().clone().requires_grad_(trainable), b.detach().clone().requires_grad_(trainable))
            for path, (a, b) in old.tensors.items()
        }
        return self._add(Adapter(name, old.lora, tensors, old.version))

    def _add(self, adapter: Adapter) -> Adapter:
        if adapter.name in self.adapters:
            raise ValueError(f"there is an adapter {adapter.name!r} already")
        self.adapters[adapter.name] = adapter
        return adapter

    def load(self, folder: Path, name: str) -> Adapter:
        """An adapter from a folder in PEFT's format.  Raises UserError when it is none, or not for this base."""
        weights, lora = read_peft(folder)
        tensors = {}
        for path in sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in weights}):
            a = weights.get(f"base_model.model.{path}.lora_A.weight")
            b = weights.get(f"base_model.model.{path}.lora_B.weight")
            layer = self.layers.get(path)
            if a is None or b is None or layer is None or (b.shape[0], a.shape[1]) != tuple(layer.weight.shape):
                raise UserError(
                    f"layer {path!r} of this adapter does not fit the base model",
                    place=str(folder),
                    remedy="load it on the base model it was trained on (adapter_config.json names it)",
                )
            device = layer.weight.device
            tensors[path] = (a.float().to(device).requires_grad_(), b.float().to(device).requires_grad_())
        return self._add(Adapter(name, lora, tensors))


def _targeted(path: str, lora: LoRA) -> bool:
    return not lora.targets or path.rpartition(".")[2] in lora.targets


def read_peft(folder: Path) -> tuple[dict[str, Tensor], LoRA]:
    """The tensors and shape of a PEFT LoRA adapter.  Raises UserError for what this engine cannot reproduce."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"not a readable PEFT adapter: {error}",
            place=str(folder),
            remedy="it needs adapter_config.json and adapter_model.safetensors",
        ) from error
    odd = [key for key in UNREAD if config.get(key)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("peft_type") != "LORA" or odd:
        raise UserError(
            f"only plain LoRA adapters can be loaded (this one has {', '.join(odd) or config.get('peft_type')})",
            place=str(folder),
            remedy="merge it into its base and load that",
        )
    ranks = {tensor.shape[0] for key, tensor in weights.items() if ".lora_A." in key}
    if ranks != {rank}:
        raise UserError(
            f"its layers have ranks {sorted(ranks)}, its configuration says {rank}",
            place=str(folder),
            remedy="the two files do not belong together: save the adapter again",
        )
    return weights, LoRA(rank=rank, alpha=alpha)


def write_peft(adapter: Adapter, folder: Path, base_name: str) -> None:
    """Writes an adapter in PEFT's file format."""
    tensors = {}
    for path, (a, b) in adapter.tensors.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = b.detach().cpu().contiguous()
    leaves = sorted({path.rpartition(".")[2] for path in adapter.tensors})
    config = LoraConfig(
        r=adapter.lora.rank,
        lora_alpha=adapter.lora.alpha,  # type: ignore[arg-type]
        target_modules=leaves,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "optimiser.safetensors").unlink(missing_ok=True)  # it belonged to other weights
        _write_tensors(tensors, folder / "adapter_model.safetensors")
        config.save_pretrained(str(folder))


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_optimiser(adapter: Adapter, folder: Path) -> None:
    """Writes AdamW's moments and the step count beside the adapter, to resume from."""
    tensors: dict[str, Any] = {"version": torch.tensor(adapter.version)}
    if adapter.optimiser is not None:
        for i, parameter in enumerate(adapter.parameters()):
            for key, value in adapter.optimiser.state.get(parameter, {}).items():
                tensors[f"{i}.{key}"] = value
    with disk_errors(folder):
        _write_tensors(tensors, folder / "optimiser.safetensors")


def read_optimiser(adapter: Adapter, folder: Path) -> None:
    """Restores what `write_optimiser` wrote; nothing happens when there is nothing to restore."""
    path = folder / "optimiser.safetensors"
    if not path.exists():
        return
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"a broken checkpoint: {error}", place=str(path), remedy="go back to an earlier one") from error
    adapter.version = int(tensors.pop("version"))
    if not tensors:
        return
    adapter.optimiser = torch.optim.AdamW(adapter.parameters(), fused=True)
    for i, parameter in enumerate(adapter.parameters()):
        prefix = f"{i}."
        adapter.optimiser.state[parameter] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
