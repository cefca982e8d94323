"""The torch engine: one base model, many adapters, prefix forests, one thread.

engine = TorchEngine.open("smollm2")
policy = engine.base().fork("mine", LoRA(rank=16))
await policy.forward_backward(data, losses.cross_entropy); await policy.optim_step(Adam(1e-3))
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from posttrain.engines.constraints import ConstraintCompiler
from posttrain.engines.torch import base
from posttrain.engines.torch.adapters import BASE, Precision, fresh_stamp, read_optimiser, write_optimiser, write_peft
from posttrain.engines.torch.forest import cut, plant
from posttrain.engines.torch.network import Network
from posttrain.engines.torch.sampler import Sampler, Slotted
from posttrain.engines.torch.thread import TorchThread
from posttrain.engines.writing import generator_for
from posttrain.renderers.chat_template import ChatTemplateRenderer
from posttrain.types import (
    Adam,
    Completion,
    Datum,
    LoRA,
    Loss,
    Metrics,
    OnText,
    Prompt,
    Renderer,
    Sampling,
    Tokens,
    UserError,
)

MEMORY_SHARE = 0.4
"""Share of the free memory that the activations of one micro-batch may take."""


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
    ) -> None:
        self.name, self.source, self.device = name, source, device
        self.network = Network(model, tokenizer, device, precision)
        self.renderer = ChatTemplateRenderer(tokenizer)
        ends = model.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), *self.renderer.stop_tokens} - {None}
        self.sampler = Sampler(self.network, frozenset(stops))
        self.constraints = ConstraintCompiler(tokenizer, self.renderer.stop_token)
        self.thread = TorchThread(lambda: self.sampler.busy, self.sampler.step, self._sampling_failed)
        self.micro_batch_tokens = self._micro_batch_tokens()
        self._serial = itertools.count(1)

    @classmethod
    def open(cls, model: str = base.EMBEDDED, *, device: str = "", precision: Precision | None = None) -> TorchEngine:
        """Loads a hub name, a local folder or `smollm2`.  Raises UserError when it cannot be had.

        Device and precision are the fastest this machine has unless they are given.
        """
        chosen = torch.device(device) if device else base.choose_device()
        network, tokenizer, source = base.load(model, chosen)
        return cls(
            network,
            tokenizer,
            name=model,
            source=source,
            device=chosen,
            precision=precision or base.choose_precision(chosen),
        )

    def base(self) -> TorchPolicy:
        """The bare base model."""
        return TorchPolicy(self, BASE, trainable=False)

    def load(self, folder: Path, name: str = "") -> TorchPolicy:
        """A policy with an adapter from a folder in PEFT's format."""
        adapter = self.network.bank.load(folder, self.fresh_name(name or folder.name))
        return TorchPolicy(self, adapter.name, trainable=True)

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, numbered when it is taken."""
        return wanted if wanted not in self.network.bank.adapters else f"{wanted}-{next(self._serial)}"

    def close(self) -> None:
        self.thread.close()

    def forget(self, adapter: str) -> None:
        """Drops an adapter; whoever waits for a completion of it is told.  On the torch thread."""
        for row in (*self.sampler.rows, *self.sampler.waiting):
            if row.adapter == adapter:
                row.cancelled = True
                row.done(RuntimeError(f"policy {adapter} was dropped"))
        self.network.bank.adapters.pop(adapter, None)

    def _micro_batch_tokens(self) -> int:
        """Tokens whose activations fit: per layer about 14 hidden-sized and 5 inner-sized tensors are kept."""
        config = self.network.config
        inner = int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
        width = 4 if self.device.type != "cuda" else 2
        per_token = config.num_hidden_layers * (14 * config.hidden_size + 5 * inner) * width
        free = torch.cuda.mem_get_info()[0] if self.device.type == "cuda" else psutil.virtual_memory().available
        return max(512, min(16384, int(free * MEMORY_SHARE / per_token)))

    def _sampling_failed(self, error: BaseException) -> None:
        writings = [*self.sampler.rows, *self.sampler.waiting]
        self.sampler.rows.clear()
        self.sampler.waiting.clear()
        for writing in writings:
            writing.done(error)


class TorchPolicy:
    """One adapter of an engine (or none) behind the five verbs.  See types.Policy."""

    remote = False

    def __init__(self, engine: TorchEngine, adapter: str, *, trainable: bool) -> None:
        self.engine, self.adapter, self.trainable = engine, adapter, trainable
        self.name = adapter or engine.name
        self.model = engine.name
        self.renderer: Renderer = engine.renderer
        self.context_length = engine.network.context_length
        self.model_folder = Path(engine.source)

    @property
    def version(self) -> int:
        """Optimiser steps taken; every completion carries it."""
        return self.engine.network.bank.adapters[self.adapter].version if self.adapter else 0

    async def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, sampling: Sampling, on_text: OnText | None = None
    ) -> list[list[Completion]]:
        """See types.Policy.  Raises UserError for a prompt that leaves no room for an answer."""
        loop = asyncio.get_running_loop()
        vocabulary = int(self.engine.network.config.vocab_size)
        for prompt in _tokens(prompts):
            if not prompt or not all(0 <= token < vocabulary for token in prompt):
                raise UserError(
                    "a prompt is empty, or has tokens that the model does not know",
                    remedy="render the messages with policy.renderer",
                )
            if len(prompt) + sampling.max_tokens > self.context_length:
                raise UserError(
                    f"a prompt of {len(prompt)} tokens and an answer of {sampling.max_tokens} do not fit into "
                    f"the model's {self.context_length}",
                    remedy="shorten the row, or show fewer examples",
                )
        futures: list[asyncio.Future[Completion]] = []
        writings = []
        for i, prompt in enumerate(_tokens(prompts)):
            for j in range(n):
                futures.append(loop.create_future())
                writings.append(
                    Slotted(
                        prompt=prompt,
                        sampling=sampling,
                        adapter=self.adapter,
                        constraint=self.engine.constraints.start(sampling.output),
                        generator=generator_for(sampling, prompt, j),
                        done=_resolve(loop, futures[-1]),
                        on_text=None if on_text is None else _on_loop(loop, on_text, i, j),
                    )
                )

        def enqueue() -> None:
            for writing in writings:
                writing.version = self.version
                writing.stamp = self.engine.network.bank.adapters[self.adapter].stamp if self.adapter else 0
            self.engine.sampler.waiting.extend(writings)

        try:
            await self.engine.thread.run(enqueue)
            completions = await asyncio.gather(*futures)
        except asyncio.CancelledError:
            for writing in writings:
                writing.cancelled = True
            raise
        return [list(completions[i * n : (i + 1) * n]) for i in range(len(prompts))]

    async def logprobs(self, data: Sequence[Datum]) -> list[list[float]]:
        """See types.Policy."""
        results: list[list[float]] = [[] for _ in data]
        wanted = [i for i, datum in enumerate(data) if datum.trained]
        self._check_lengths([data[i] for i in wanted])

        def score(members: list[int]) -> None:
            with torch.inference_mode():
                tensors = self._trained_logprobs([data[i] for i in members])[0]
            for i, tensor in zip(members, tensors, strict=True):
                results[i] = tensor.tolist()

        for chosen in cut([[data[i].tokens] for i in wanted], self.engine.micro_batch_tokens):
            await self.engine.thread.run(functools.partial(score, [wanted[i] for i in chosen]))
        return results

    async def forward_backward(self, data: Sequence[Datum], loss: Loss, *, normaliser: float = 1.0) -> Metrics:
        """See types.Policy.  Metrics are sums; `forwarded_tokens` counts what was really computed."""
        if not self.trainable:
            raise UserError(f"policy {self.name!r} is frozen", remedy="train a fork of it")
        self._check_lengths(data)
        keyed = [(datum.group or f"#{i}", datum) for i, datum in enumerate(data)]
        groups = [[datum for _, datum in members] for _, members in groupby(keyed, key=lambda pair: pair[0])]
        metrics: Metrics = {}
        for members in cut([[datum.tokens for datum in group] for group in groups], self.engine.micro_batch_tokens):
            batch = [datum for i in members for datum in groups[i]]
            more = await self.engine.thread.run(functools.partial(self._backward, batch, loss, normaliser))
            for key, value in more.items():
                metrics[key] = metrics.get(key, 0.0) + value
        return metrics

    def _backward(self, batch: Sequence[Datum], loss: Loss, normaliser: float) -> Metrics:
        logprobs, forwarded = self._trained_logprobs(batch)
        total, metrics = loss(logprobs, batch)
        (total / normaliser).backward()
        trained = sum(len(logprob) for logprob in logprobs)
        return {
            **metrics,
            "loss": total.item() / normaliser,
            "trained_tokens": float(trained),
            "tokens": float(sum(len(datum.tokens) for datum in batch)),
            "forwarded_tokens": float(forwarded),
        }

    def _trained_logprobs(self, batch: Sequence[Datum]) -> tuple[list[Tensor], int]:
        """Per datum the log-probabilities at its trained positions, and how many tokens were forwarded."""
        # nothing is predicted from the last token of a sequence
        forest = plant([datum.tokens[:-1] or datum.tokens for datum in batch], [self.adapter] * len(batch))
        hidden, _ = self.engine.network.forest(forest)
        sources, targets, counts = [], [], []
        for i, datum in enumerate(batch):
            place = forest.index(i)
            trained = datum.trained
            sources += [place[position - 1] for position in trained]
            targets += [datum.tokens[position] for position in trained]
            counts.append(len(trained))
        device = self.engine.device
        logprobs = self.engine.network.token_logprobs(
            hidden[torch.tensor(sources, device=device)], torch.tensor(targets, device=device)
        )
        return list(logprobs.split(counts)), len(forest.tokens)

    def _check_lengths(self, data: Sequence[Datum]) -> None:
        for datum in data:
            if datum.weights[0] != 0 or not datum.trained:
                raise UserError(
                    "a training sequence has nothing to train, or trains its first token",
                    remedy="give every row an answer after its prompt",
                )
            if len(datum.tokens) > self.context_length:
                raise UserError(
                    f"a training sequence of {len(datum.tokens)} tokens does not fit into the model's "
                    f"{self.context_length}",
                    remedy="shorten or leave out the row",
                )

    async def optim_step(self, adam: Adam) -> Metrics:
        """See types.Policy.  Raises UserError when the gradient is missing or not finite: nothing would be learnt."""
        while (metrics := await self.engine.thread.run(lambda: self._step_if_quiet(adam))) is None:
            await asyncio.sleep(0.005)
        return metrics

    def _step_if_quiet(self, adam: Adam) -> Metrics | None:
        """A step, unless completions of this adapter are under way: they end on the weights they began with."""
        return None if self.engine.sampler.writes_with(self.adapter) else self._step(adam)

    def _step(self, adam: Adam) -> Metrics:
        adapter = self.engine.network.bank.adapters[self.adapter]
        parameters = adapter.parameters()
        if all(parameter.grad is None for parameter in parameters):
            raise UserError("an optimiser step without a gradient", remedy="call forward_backward first")
        if adapter.optimiser is None:
            adapter.optimiser = torch.optim.AdamW(parameters, fused=True)
        norm = torch.nn.utils.clip_grad_norm_(parameters, adam.max_grad_norm or float("inf"))
        if not torch.isfinite(norm):
            for parameter in parameters:
                parameter.grad = None
            raise UserError("the gradient is not finite: training has diverged", remedy="use a smaller learning rate")
        for group in adapter.optimiser.param_groups:
            group.update(
                lr=adam.learning_rate, betas=(adam.beta1, adam.beta2), eps=adam.epsilon, weight_decay=adam.weight_decay
            )
        adapter.optimiser.step()
        adapter.optimiser.zero_grad(set_to_none=True)
        adapter.version += 1
        adapter.stamp = fresh_stamp()
        return {"gradient_norm": norm.item()}

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        """See types.Policy.  Raises UserError for the bare base: there is nothing to save."""
        if not self.adapter:
            raise UserError("the base model has no adapter to save", remedy="train first: sft, dpo or grpo")
        adapter = self.engine.network.bank.adapters[self.adapter]

        def write() -> None:
            write_peft(adapter, folder, self.engine.source)
            if optimiser:
                write_optimiser(adapter, folder)

        await self.engine.thread.run(write)

    async def load(self, folder: Path) -> None:
        """See types.Policy."""
        bank = self.engine.network.bank

        def read() -> None:
            old = bank.adapters.pop(self.adapter)
            try:
                adapter = bank.load(folder, self.adapter)
            except UserError:
                bank.adapters[self.adapter] = old
                raise
            adapter.version = old.version + 1  # another version than what was cached
            read_optimiser(adapter, folder)

        await self.engine.thread.run(read)

    def frozen(self) -> TorchPolicy:
        """See types.Policy.  A frozen base is the base itself."""
        if not self.adapter:
            return TorchPolicy(self.engine, BASE, trainable=False)
        name = self.engine.fresh_name(f"{self.adapter}-frozen")
        self.engine.thread.submit(lambda: self.engine.network.bank.copy(self.adapter, name, trainable=False)).result()
        return TorchPolicy(self.engine, name, trainable=False)

    def fork(self, name: str, lora: LoRA | None = None, *, seed: int = 0) -> TorchPolicy:
        """See types.Policy."""
        name = self.engine.fresh_name(name)
        bank = self.engine.network.bank
        if self.adapter:
            self.engine.thread.submit(lambda: bank.copy(self.adapter, name, trainable=True)).result()
        else:
            self.engine.thread.submit(lambda: bank.create(name, lora or LoRA(), seed)).result()
        return TorchPolicy(self.engine, name, trainable=True)

    def drop(self) -> None:
        """See types.Policy."""
        if self.adapter:
            self.engine.thread.submit(lambda: self.engine.forget(self.adapter)).result()


def _tokens(prompts: Sequence[Prompt]) -> list[Tokens]:
    """The prompts, which for this engine are tokens."""
    if any(prompt and not isinstance(prompt[0], int) for prompt in prompts):
        raise TypeError("the torch engine samples from tokens: render the messages with policy.renderer")
    return list(prompts)  # type: ignore[arg-type]


def _on_loop(loop: asyncio.AbstractEventLoop, on_text: OnText, prompt: int, completion: int) -> Any:
    return lambda text: _call(loop, on_text, prompt, completion, text)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Calls on the event loop; an asker whose loop is closed has left and needs no answer."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _resolve(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Completion]) -> Any:
    """Hands a completion (or the error that ended it) from the torch thread to the event loop."""

    def settle(result: Completion | BaseException) -> None:
        if future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    return lambda result: _call(loop, settle, result)
