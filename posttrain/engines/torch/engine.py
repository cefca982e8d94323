"""The torch engine: one base model, many adapters, prefix forests, one thread.

engine = TorchEngine.open("smollm2")
policy = engine.base().fork("mine", LoRA(rank=16))
await policy.forward_backward(data, losses.cross_entropy); await policy.optim_step(Adam(1e-3))
"""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import torch

from posttrain.engines.constraints import ConstraintCompiler
from posttrain.engines.torch import base, memory
from posttrain.engines.torch.adapter_files import read_adapter
from posttrain.engines.torch.adapters import BASE, Precision
from posttrain.engines.torch.lockstep import Lockstep
from posttrain.engines.torch.network import Network
from posttrain.engines.torch.policy import TorchPolicy
from posttrain.engines.torch.sampler import Sampler
from posttrain.engines.torch.thread import TorchThread
from posttrain.engines.torch.training import Trainer
from posttrain.renderers.chat_template import ChatTemplateRenderer
from posttrain.types import UserError

JOINED_TOKENS = 512
"""Tokens of several trainings that are computed in one call, on a CPU: what they share is held for all of them at once,
and products of more rows gain little there (a sweep of 8 held 3.6 GB without this limit, one after another 2.0)."""


class TorchEngine:
    """Owns one base model and its bank of adapters; hands out policies."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        source: str,
        device: torch.device,
        precision: Precision = "float32",
        deterministic: bool = False,
    ) -> None:
        self.name, self.source, self.device = name, source, device
        self.network = Network(model, tokenizer, device, precision, deterministic=deterministic)
        self.renderer = ChatTemplateRenderer(tokenizer)
        ends = model.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), *self.renderer.stop_tokens} - {None}
        held = memory.held_tokens(self.network)
        self.sampler = Sampler(self.network, frozenset(stops), min(memory.MOST_READ, held), held)
        self.sampling_bytes = (
            0 if device.type == "cuda" else self.sampler.most_held * memory.key_value_bytes(self.network)
        )
        self.constraints = ConstraintCompiler(tokenizer, self.renderer.stop_token)
        self.thread = TorchThread(self.sampler)
        joined_tokens = JOINED_TOKENS if device.type == "cpu" else memory.MOST_TRAINED
        self.trainer = Trainer(self.network, self.thread, joined_tokens)
        self.locksteps: weakref.WeakSet[Lockstep] = weakref.WeakSet()

    @classmethod
    def open(
        cls,
        model: str = base.EMBEDDED,
        *,
        device: str = "",
        precision: Precision | None = None,
        deterministic: bool = False,
    ) -> TorchEngine:
        """Loads a hub name, a local folder or `smollm2`.  Raises UserError when it cannot be had.

        Device and precision are the fastest this machine has unless they are given.  `deterministic`: completions are
        the same to the bit whatever else is written at the same time, or was before; what prompts share is read for
        each.
        """
        chosen = torch.device(device) if device else base.choose_device()
        if precision == "int8" and chosen.type != "cpu":
            raise UserError(f"int8 is for CPUs, and this is {chosen.type}", remedy="leave --precision out")
        network, tokenizer, source = base.load(model, chosen, precision)
        engine = cls(
            network,
            tokenizer,
            name=model,
            source=source,
            device=chosen,
            precision=precision or base.choose_precision(chosen),
            deterministic=deterministic,
        )
        gc.collect()
        gc.freeze()  # a model and its libraries are 400,000 objects: to look for garbage there took 2 to 4 % of a step
        return engine

    @property
    def precision(self) -> Precision:
        """Of the products with frozen weights."""
        return "bfloat16" if self.network.model.dtype == torch.bfloat16 else self.network.bank.precision

    def base(self) -> TorchPolicy:
        """The bare base model."""
        return TorchPolicy(self, BASE, trainable=False)

    def load(self, folder: Path, name: str = "") -> TorchPolicy:
        """A policy with the adapter in a folder in PEFT's format.  (TorchPolicy.load also restores the optimiser.)

        Raises UserError when it is none that this engine can reproduce.
        """
        bank, wanted = self.network.bank, name or folder.resolve().name
        adapter = self.thread.submit(
            lambda: bank.add(read_adapter(folder, wanted, bank.layers, self.renderer.template))
        ).result()
        return TorchPolicy(self, adapter.name, trainable=True)

    def close(self) -> None:
        """Ends the engine's thread.  Whoever still waits for something gets a RuntimeError."""
        self.thread.close()
        for lockstep in [*self.locksteps]:
            lockstep.fail(RuntimeError("the engine was closed"))
        self.network.threads.close()
        gc.unfreeze()
