"""Weights that change between completions, and soon: whoever is under way notices nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_crowd import data, learn, prompts, run, tensors, texts

from posttrain import losses
from posttrain.engines.torch import drafts, memory
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import LoRA, Sampling, UserError


@pytest.fixture(autouse=True)
def nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what was written once would be written again before anything could happen to it."""
    monkeypatch.setattr(drafts, "LONGEST_DRAFT", 0)


@pytest.fixture
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    """One of its own for each test: these may leave an engine broken."""
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def step_once(policy: TorchPolicy, adam: Adam = Adam(0.3)) -> Coroutine[Any, Any, Any]:
    async def step() -> None:
        await policy.forward_backward(data(policy.engine, "no"), losses.cross_entropy, normaliser=1)
        await policy.optim_step(adam)

    return step()


def test_a_completion_ends_on_the_weights_it_began_with_when_others_are_loaded(
        engine: TorchEngine, tmp_path: Path) -> None:
    async def race() -> None:
        policy, sampling = engine.base().fork("raced"), Sampling(60, temperature=1.0, seed=1)
        await policy.save(tmp_path)
        await learn(policy, "yes")
        before = await texts(policy, sampling)
        asked = asyncio.ensure_future(texts(policy, sampling))
        while not (engine.sampler.rows or asked.done()):
            await asyncio.sleep(0)
        assert engine.sampler.rows
        await policy.load(tmp_path)
        assert asked.done() or not engine.sampler.rows, "the completions ended first"
        assert await asked == before
        assert await texts(policy, sampling) == await texts(engine.base(), sampling), "a fresh adapter changes nothing"

    run(race())


def test_training_is_not_starved_by_those_who_ask_without_end(engine: TorchEngine) -> None:
    async def crowd() -> None:
        policy = engine.base().fork("busy")
        await learn(policy, "yes")
        asked, answered, stop = [0] * 4, [], asyncio.Event()

        async def user(i: int) -> None:
            while not stop.is_set():
                asked[i] += 1
                sampling = Sampling(20 + 7 * i, temperature=3.0, seed=asked[i])
                answered.extend(completion.version for (completion,) in
                                await policy.sample(prompts(engine), sampling=sampling))

        users = [asyncio.ensure_future(user(i)) for i in range(4)]
        await asyncio.sleep(0.1)
        for _ in range(5):
            await asyncio.wait_for(step_once(policy, Adam(1e-4)), 3)
        stop.set()
        await asyncio.gather(*users)
        assert sorted(set(answered))[-1] == policy.version == 8 and len(set(answered)) > 2

    run(crowd())


def test_what_waits_for_a_slot_begins_on_the_new_weights(engine: TorchEngine) -> None:
    async def crowd() -> None:
        policy, other = engine.base().fork("full"), engine.base()
        engine.sampler.slot_tokens = 60 * 64
        await policy.forward_backward(data(engine, "no"), losses.cross_entropy, normaliser=1)
        sampling = Sampling(40, temperature=1.0, seed=1)
        asked = asyncio.ensure_future(policy.sample(prompts(engine), n=50, sampling=sampling))  # 150 of 60 at a time
        while not engine.sampler.rows:
            await asyncio.sleep(0.001)
        beside = asyncio.ensure_future(texts(other, Sampling(10)))  # another adapter is not held
        await policy.optim_step(Adam(0.3))
        versions = [completion.version for group in await asked for completion in group]
        assert set(versions) == {0, 1} and versions.count(0) == 60
        assert await beside == await texts(other, Sampling(10))

    run(crowd())


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_step_that_is_not_taken_holds_nobody_back(
        engine: TorchEngine, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    free, steps, plain = threading.Event(), threading.Semaphore(0), engine.sampler.step

    def one_by_one(held: Collection[str]) -> None:
        while not (free.is_set() or steps.acquire(timeout=0.001)):
            pass
        plain(held)

    monkeypatch.setattr(engine.sampler, "step", one_by_one)

    async def crowd() -> None:
        policy, sampling = engine.base().fork("patient"), Sampling(60, temperature=2.0, seed=4)
        free.set()
        wanted = await texts(policy, sampling)
        if how == "is cancelled":
            await policy.forward_backward(data(engine), losses.cross_entropy)
        free.clear()
        first = asyncio.ensure_future(texts(policy, sampling))
        steps.release()
        while not engine.sampler.rows:
            await asyncio.sleep(0.001)
        step = asyncio.ensure_future(policy.optim_step(Adam(0.1)))  # without a gradient it fails
        second = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.001)
        steps.release(3)  # in which the second is held back
        while steps.acquire(blocking=False):
            steps.release()
            await asyncio.sleep(0.001)
        assert engine.sampler.rows and len(engine.sampler.waiting) == sum(map(len, wanted))
        if how == "is cancelled":
            step.cancel()
        free.set()
        results = await asyncio.gather(first, second, step, return_exceptions=True)
        assert results[:2] == [wanted, wanted]
        assert isinstance(results[2], UserError if how == "fails" else asyncio.CancelledError)
        assert policy.version == 0

    run(crowd())


def test_the_verbs_of_an_adapter_run_in_the_order_of_their_calls(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the clients of a remote engine call them: without waiting for one to ask for the next."""
    async def both() -> None:
        waited, piped = engine.base().fork("waited", LoRA(4)), engine.base().fork("piped", LoRA(4))
        engine.trainer.micro_batch_tokens = 1  # many jobs for each call
        monkeypatch.setattr(memory, "MOST_READ", 1)
        work: list[Any] = []
        for answer in ("yes", "no", "yes no"):
            await learn(waited, answer, 1)
            work += [piped.forward_backward(data(engine, answer), losses.cross_entropy, normaliser=9),
                     piped.optim_step(Adam(3e-2)), piped.logprobs(data(engine))]
        results = await asyncio.gather(*work)
        assert len({str(scores) for scores in results[2::3]}) == 3, "each after its own step"
        assert results[-1] == await piped.logprobs(data(engine))
        for one, other in zip(tensors(waited), tensors(piped), strict=True):
            assert torch.equal(one, other)

    run(both())


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_half_a_gradient_is_none(engine: TorchEngine, how: str) -> None:
    async def fail() -> None:
        policy, other = engine.base().fork("half", LoRA(4)), engine.base().fork("whole", LoRA(4))
        engine.trainer.micro_batch_tokens, calls = 1, []

        def broken(logprobs: Any, data: Any) -> Any:
            calls.append(len(data))
            if len(calls) == 2:
                if how == "fails":
                    raise ZeroDivisionError("in the second of three pieces")
                time.sleep(0.2)
            return losses.cross_entropy(logprobs, data)

        for whole in (policy, other):
            await whole.forward_backward(data(engine, "yes"), losses.cross_entropy, normaliser=9)
        with pytest.raises(ZeroDivisionError if how == "fails" else TimeoutError):
            await asyncio.wait_for(policy.forward_backward(data(engine, "no"), broken), 0.1 if how != "fails" else None)
        for whole in (policy, other):
            await whole.optim_step(Adam(3e-2))
        assert len(calls) < 3 or how == "fails", "what has not begun is given up"
        for one, two in zip(tensors(policy), tensors(other), strict=True):
            assert torch.equal(one, two)

    run(fail())
