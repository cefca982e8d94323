"""A policy of the torch engine: one adapter, or none, behind the five verbs.

This side runs on the event loop, checks what is asked for, and hands jobs to the engine's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from posttrain.engines.torch import heap, memory
from posttrain.engines.torch.adapter_files import read_adapter, read_optimiser, write_adapter, write_optimiser
from posttrain.engines.torch.adapters import BASE, Adapter, Precision
from posttrain.engines.torch.forest import cut, share_out
from posttrain.engines.torch.lockstep import Lockstep
from posttrain.engines.torch.stems import Slotted
from posttrain.engines.torch.training import Lesson
from posttrain.engines.writing import generator_for
from posttrain.optimisers import Optimiser
from posttrain.types import (
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

if TYPE_CHECKING:
    from posttrain.engines.torch.engine import TorchEngine


class TorchPolicy:
    """One adapter of an engine (or none) behind the five verbs.  See types.Policy.

    The verbs of one adapter run in the order they were called, awaited or not.
    """

    remote = False

    def __init__(self, engine: TorchEngine, adapter: str, *, trainable: bool) -> None:
        self.engine, self.adapter, self.trainable = engine, adapter, trainable
        self.name = adapter or engine.name
        self.model = engine.name
        self.renderer: Renderer = engine.renderer
        self.context_length = engine.network.context_length
        self.sampling_bytes = engine.sampling_bytes
        self.model_folder = Path(engine.source)
        self._lockstep: Lockstep | None = None

    @property
    def precision(self) -> Precision:
        """Of the products with frozen weights."""
        return self.engine.precision

    @property
    def version(self) -> int:
        """Optimiser steps taken; every completion carries it."""
        return self._weights().version if self.adapter else 0

    def _weights(self) -> Adapter:
        return self.engine.network.bank.get(self.adapter)

    # ---- sampling

    async def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, sampling: Sampling, on_text: OnText | None = None
    ) -> list[list[Completion]]:
        """See types.Policy.  Raises UserError for a prompt that leaves no room for an answer."""
        futures: list[asyncio.Future[Completion]] = []
        writings: list[Slotted] = []
        lockstep, self._lockstep = self._lockstep, None  # its lessons are over for now, if it is one of several
        try:
            for i, prompt in enumerate(_tokens(prompts)):
                self._check_prompt(prompt, sampling)
                for j in range(n):
                    futures.append(asyncio.get_running_loop().create_future())
                    writings.append(self._writing(prompt, sampling, i, j, on_text, futures[-1]))
            if lockstep:  # it is judged, and so are the others
                lockstep.want(self.adapter, writings)
            else:
                await self._ask(writings)
            completions = await asyncio.gather(*futures)
        except BaseException:  # cancelled, or one of them failed: nobody waits for the others
            if lockstep:
                lockstep.leave(self.adapter)
            for writing in writings:
                writing.cancelled = True
            raise
        return [list(completions[i * n : (i + 1) * n]) for i in range(len(prompts))]

    def _writing(
        self,
        prompt: Tokens,
        sampling: Sampling,
        i: int,
        j: int,
        on_text: OnText | None,
        asked: asyncio.Future[Completion],
    ) -> Slotted:
        """Completion j of prompt i, which was asked for."""
        loop = asked.get_loop()
        return Slotted(
            prompt=prompt,
            sampling=sampling,
            adapter=self.adapter,
            constraint=self.engine.constraints.start(sampling.output),
            generator=generator_for(sampling, prompt, j),
            done=_resolve(loop, asked),
            on_text=None if on_text is None else _on_loop(loop, on_text, i, j),
        )

    async def _ask(self, writings: Sequence[Slotted], *, after_lessons: bool = False) -> None:
        """Hands completions in that are to be written, not all of them of this adapter."""
        engine = self.engine

        def enqueue() -> None:
            if after_lessons:  # what these took goes back before there are keys of all to hold
                heap.give_back()
            for writing in writings:
                try:
                    if writing.adapter:  # else everybody's next step would fail for want of it
                        engine.network.bank.get(writing.adapter)
                    engine.sampler.waiting.append(writing)
                except RuntimeError as error:
                    writing.done(error)

        await engine.thread.run(enqueue)

    def _check_prompt(self, prompt: Tokens, sampling: Sampling) -> None:
        if not prompt or not self._are_known(prompt):
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

    def _are_known(self, tokens: Tokens) -> bool:
        return min(tokens) >= 0 and max(tokens) < int(self.engine.network.config.vocab_size)

    # ---- scoring and training

    async def logprobs(self, data: Sequence[Datum]) -> list[list[float]]:
        """See types.Policy."""
        results: list[list[float]] = [[] for _ in data]
        wanted = [i for i, datum in enumerate(data) if datum.trained]
        self._check_data([data[i] for i in wanted])

        network = self.engine.network

        @torch.inference_mode()
        def score(members: list[int]) -> None:
            tensors, _ = network.trained_logprobs([data[i] for i in members], [self.adapter] * len(members))
            for i, tensor in zip(members, tensors, strict=True):
                results[i] = tensor.tolist()

        def score_piece(members: list[int]) -> None:
            shares = share_out([[data[i].tokens] for i in members], network.threads.most)
            network.threads.side_by_side([partial(score, [members[i] for i in share]) for share in shares])

        wanted.sort(key=lambda i: data[i].tokens)  # those that begin alike meet
        pieces = cut([[data[i].tokens] for i in wanted], memory.MOST_READ)
        jobs = [partial(score_piece, [wanted[i] for i in piece]) for piece in pieces]
        await self.engine.thread.run_all(jobs, self.adapter)
        return results

    async def forward_backward(self, data: Sequence[Datum], loss: Loss, *, normaliser: float = 1.0) -> Metrics:
        """See types.Policy.  Metrics are sums; `forwarded_tokens` counts what was really computed.

        When any part fails, or the call is cancelled, the gradient is what it was before.
        """
        self._check_trainable()
        if not data:
            raise UserError("there is nothing to train on", remedy="give forward_backward at least one sequence")
        self._check_data(data)
        lesson = Lesson(self.adapter, data, loss, normaliser)
        if self._lockstep:
            return await self._lockstep.learn(lesson)
        (metrics,) = await self.engine.trainer.learn([lesson])
        return metrics

    def keep_step(self, others: Sequence[TorchPolicy]) -> Callable[[TorchPolicy], None]:
        """See types.Policy."""
        members = [self, *others]
        ask = partial(self._ask, after_lessons=True)
        lockstep = Lockstep([member.adapter for member in members], self.engine.trainer.learn, ask)
        self.engine.locksteps.add(lockstep)
        for member in members:
            member._leave_step()
            member._lockstep = lockstep
        return TorchPolicy._leave_step

    def _leave_step(self) -> None:
        lockstep, self._lockstep = self._lockstep, None
        if lockstep:
            lockstep.leave(self.adapter)

    def _check_data(self, data: Sequence[Datum]) -> None:
        for datum in data:
            if not datum.trained or datum.weights[0] != 0:
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
            if not self._are_known(datum.tokens):
                raise UserError(
                    "a training sequence has tokens that the model does not know",
                    remedy="render the messages with policy.renderer",
                )

    def _check_trainable(self) -> None:
        if self.precision == "int8":
            raise UserError("a model in int8 answers and is not trained", remedy="leave --precision int8 out")
        if not self.trainable:
            raise UserError(f"policy {self.name!r} is frozen", remedy="train a fork of it")

    async def optim_step(self, settings: Optimiser) -> Metrics:
        """See types.Policy.  Raises UserError when the gradient is missing or not finite: nothing would be learnt.

        Completions under way end first, on the weights they began with; those that wait begin on the new ones.
        """
        self._check_trainable()
        return await self.engine.thread.run(lambda: self._weights().optim_step(settings), self.adapter, changes=True)

    # ---- saving, loading, copying

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        """See types.Policy.  Raises UserError for the bare base: there is nothing to save.

        With the optimiser's state, the sampler begins afresh: from here on all is as it will be after `load`.
        """
        if not self.adapter:
            raise UserError("the base model has no adapter to save", remedy="train first: sft, dpo or grpo")

        def write() -> None:
            write_adapter(self._weights(), folder, self.engine.source, self.engine.renderer.template)
            if optimiser:
                write_optimiser(self._weights(), folder)
                self.engine.sampler.begin_afresh(self.adapter)

        await self.engine.thread.run(write, self.adapter)

    async def load(self, folder: Path) -> None:
        """See types.Policy.  Completions under way end first.  When anything is wrong, nothing changes."""
        self._check_trainable()
        bank = self.engine.network.bank

        def read() -> None:
            adapter = read_adapter(folder, self.adapter, bank.layers, self.engine.renderer.template)
            adapter.version = self._weights().version + 1  # another version than what was cached
            read_optimiser(adapter, folder)
            bank.adapters[self.adapter] = adapter
            self.engine.sampler.begin_afresh(self.adapter)

        await self.engine.thread.run(read, self.adapter, changes=True)

    def frozen(self) -> TorchPolicy:
        """See types.Policy.  A frozen base is the base itself."""
        if not self.adapter:
            return TorchPolicy(self.engine, BASE, trainable=False)
        return self._copy(f"{self.adapter}-frozen", trainable=False)

    def fork(self, name: str, lora: LoRA | None = None, *, seed: int = 0) -> TorchPolicy:
        """See types.Policy."""
        if self.adapter:
            return self._copy(name, trainable=True)
        bank = self.engine.network.bank
        fresh = self.engine.thread.submit(lambda: bank.create(name, lora or LoRA(), seed)).result()
        return TorchPolicy(self.engine, fresh.name, trainable=True)

    def _copy(self, name: str, *, trainable: bool) -> TorchPolicy:
        bank = self.engine.network.bank
        copy = self.engine.thread.submit(lambda: bank.copy(self.adapter, name, trainable=trainable)).result()
        return TorchPolicy(self.engine, copy.name, trainable=trainable)

    def drop(self) -> None:
        """See types.Policy.  Whoever waits for a completion of it is told."""

        def forget() -> None:
            self.engine.sampler.forget(self.adapter)
            self.engine.network.lower.forget(self.adapter)
            self.engine.network.bank.adapters.pop(self.adapter, None)

        if self.adapter:
            self.engine.thread.submit(forget).result()
            for lockstep in [*self.engine.locksteps]:
                lockstep.fail(RuntimeError(f"policy {self.adapter} was dropped"), self.adapter)


def _tokens(prompts: Sequence[Prompt]) -> list[Tokens]:
    """The prompts, which for this engine are tokens."""
    if any(prompt and not isinstance(prompt[0], int) for prompt in prompts):
        raise TypeError("the torch engine samples from tokens: render the messages with policy.renderer")
    return [tuple(prompt) for prompt in prompts]  # type: ignore[arg-type]


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
