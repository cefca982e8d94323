"""Many things at once: adapters, training, cancellation.  Nobody notices the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_crowd import PATIENCE_SECONDS, data, learn, prompts, run, tensors, texts
from torch_models import VOCABULARY, make, open_engine

from posttrain import losses
from posttrain.engines.torch import drafts, sampler
from posttrain.engines.torch.cache import MOST_TRUNKS, Trunk, TrunkCache
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import Datum, LoRA, Message, Output, Sampling, UserError


@pytest.fixture
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    """One of its own for each test: these may leave an engine broken."""
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def test_adapters_sampled_together_answer_as_alone(engine: TorchEngine) -> None:
    policies, sampling = [engine.base()], Sampling(20, temperature=1.0, seed=4)

    async def all_of_it() -> None:
        for i, answer in enumerate(["yes", "no no"]):
            policies.append(engine.base().fork(f"tenant {i}", LoRA(rank=4 + i)))
            await learn(policies[-1], answer)
        alone = [await texts(policy, sampling) for policy in policies]
        assert len({str(answers) for answers in alone}) == 3, "each its own answers"
        assert await asyncio.gather(*(texts(policy, sampling) for policy in policies)) == alone

        async def late(i: int, policy: TorchPolicy) -> list[list[str]]:
            await asyncio.sleep(0.01 * i)
            return await texts(policy, sampling)

        assert await asyncio.gather(*(late(i, policy) for i, policy in enumerate(policies * 2))) == alone * 2

    run(all_of_it())


def test_prompts_of_many_adapters_are_read_in_one_call(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what some of them share of their own prompts is shared still."""
    async def all_of_it() -> None:
        policies, sampling = [engine.base()], Sampling(12, temperature=1.0, seed=3)
        for i in range(3):
            policies.append(engine.base().fork(f"tenant {i}", LoRA(rank=4)))
            await learn(policies[-1], "yes no"[i:], steps=1)
        short = [tuple(range(10 + i, 20 + i)) for i in range(4)]  # each begins otherwise
        long = [(*range(30, 90), 7 + i) for i in range(2)]  # these share a trunk
        asked = [short[:1], short[1:3], long, short[3:]]
        alone = [await texts(policy, sampling, asked=own) for policy, own in zip(policies, asked, strict=True)]
        calls, prefill = [], engine.network.prefill

        def noted(read: Any, adapters: Any, trunk: Any, *rest: Any) -> Any:
            calls.append((sorted(adapters), bool(trunk)))
            return prefill(read, adapters, trunk, *rest)

        monkeypatch.setattr(engine.network, "prefill", noted)
        for policy in policies:
            engine.thread.submit(lambda name=policy.adapter: engine.sampler.begin_afresh(name)).result()
        gate = threading.Event()
        engine.thread.submit(gate.wait)  # until all have asked
        together = [asyncio.ensure_future(texts(policy, sampling, asked=own))
                    for policy, own in zip(policies, asked, strict=True)]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*together) == alone
        base, first, second, third = (policy.adapter for policy in policies)
        assert calls == [([second], False), ([base, first, first, third], False), ([second, second], True)]

    run(all_of_it())


class Conversations:
    """Some that grow: by what is answered and by 22 tokens more in each turn.  What is read is noted, per call (tokens
    of the trunk, tokens of each prompt behind it)."""

    def __init__(self, engine: TorchEngine, count: int, monkeypatch: pytest.MonkeyPatch, shared: int = 0) -> None:
        self.engine, self.random = engine, random.Random(7)
        opening = self.some(shared)
        self.prompts = [opening + self.some(70 - shared) for _ in range(count)]
        self.calls: list[tuple[int, list[int]]] = []
        prefill = engine.network.prefill

        def noted(prompts: Any, adapters: Any, trunk: Any, *rest: Any) -> Any:
            self.calls.append((len(trunk.tokens) if trunk else 0, [len(prompt) for prompt in prompts]))
            return prefill(prompts, adapters, trunk, *rest)

        monkeypatch.setattr(engine.network, "prefill", noted)
        monkeypatch.setattr(drafts, "LONGEST_DRAFT", 0)  # else guesses are read, too
        monkeypatch.setattr(sampler, "REBUILD", 16)
        self.forget()

    def some(self, count: int) -> tuple[int, ...]:
        return tuple(self.random.randrange(3, VOCABULARY) for _ in range(count))

    def forget(self) -> None:
        """The engine begins as if nothing had been asked before."""
        self.engine.thread.submit(lambda: self.engine.sampler.begin_afresh("")).result()

    def say(self, numbers: list[int], *, afresh: bool = False) -> list[tuple[int, ...]]:
        """The answers in some of them, asked together; `afresh`: of what was before the engine knows nothing."""
        if afresh:
            self.forget()
        asked = [self.prompts[number] for number in numbers]
        groups = run(self.engine.base().sample(asked, sampling=Sampling(8, temperature=1.0, seed=3)))
        answers = [completion.tokens for (completion,) in groups]
        for number, answer in zip(numbers, answers, strict=True):
            self.prompts[number] += answer + self.some(22)
        return answers

    @property
    def read(self) -> int:
        """Tokens."""
        return sum(sum(prompts) for _, prompts in self.calls)


WINDOWED = ["llama", "mistral", "gemma3"]
"""Without a window, with one, and with one in some layers."""


@pytest.mark.parametrize("name", WINDOWED)
def test_conversations_that_take_turns_are_not_read_from_the_start_again(
        name: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make(name), tiny_tokenizer)
    turns = [[0], [1]] * 6
    try:
        with monkeypatch.context() as patch:
            afresh = Conversations(engine, 2, patch)
            wanted = [afresh.say(numbers, afresh=True) for numbers in turns]
        kept = Conversations(engine, 2, monkeypatch)
        assert [kept.say(numbers) for numbers in turns] == wanted
        assert kept.prompts == afresh.prompts
        assert kept.read <= 2 * sum(map(len, kept.prompts)) < 0.6 * afresh.read, "each token twice at most"
    finally:
        engine.close()


@pytest.mark.parametrize("name", WINDOWED)
def test_prompts_of_one_call_each_use_what_is_kept_of_them(
        name: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make(name), tiny_tokenizer)
    try:
        with monkeypatch.context() as patch:
            afresh = Conversations(engine, 3, patch)
            wanted = [afresh.say(numbers, afresh=True) for numbers in ([0], [1], [0], [1], [0, 2, 1])]
        kept = Conversations(engine, 3, monkeypatch)
        assert [kept.say(numbers) for numbers in ([0], [1], [0], [1])] == wanted[:-1]
        kept.calls.clear()
        lengths = [len(prompt) for prompt in kept.prompts]
        assert [kept.say([0, 2, 1])] == wanted[-1:]
        assert kept.calls == [(69, [lengths[0] - 69]), (0, [70]), (69, [lengths[1] - 69])]
    finally:
        engine.close()


def test_nothing_is_read_for_prompts_of_which_more_is_kept(
        tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make("llama"), tiny_tokenizer)
    try:
        kept = Conversations(engine, 2, monkeypatch, shared=40)
        for number in (0, 1, 0, 1):
            kept.say([number])
        trunks = engine.sampler.trunks.trunks
        assert sorted(len(tokens) for *_, tokens in trunks) == [40, 69, 69]
        del trunks[min(trunks, key=lambda key: len(key[2]))]  # as if others had taken its place
        kept.calls.clear()
        kept.say([0, 1])
        assert [trunk for trunk, _ in kept.calls] == [69, 69]
    finally:
        engine.close()


def test_as_many_conversations_as_there_are_trunks_are_kept_while_they_grow() -> None:
    cache, owner = TrunkCache(10**6), ("", 0)
    prompts = [(i, *range(100)) for i in range(MOST_TRUNKS)]
    for i in [*range(MOST_TRUNKS), 0, *range(MOST_TRUNKS), 0, 0]:
        known, prompt = len(prompts[i]) > 101, prompts[i]
        assert cache.worth_caching(owner, [prompt]) == (len(prompt) - 51 if known else 0), "but for its last token"
        base = cache.find(owner, prompt)
        assert (base.tokens if base else ()) == (prompt[:-50] if known else ())
        cache.add(owner, Trunk(prompt, []), base)
        prompts[i] = (*prompt, *range(50))
    assert len(cache.trunks) == MOST_TRUNKS


@pytest.mark.parametrize("when", ["at the same time", "before"])
def test_an_adapter_that_has_diverged_fails_alone(engine: TorchEngine, when: str) -> None:
    """Neither who is read in one call with it, nor who comes to the place where it was, notices."""
    short, medium, long = ((*range(start, start + count),) for start, count in ((10, 6), (20, 60), (90, 120)))
    sampling = Sampling(30, temperature=1.0, seed=5)

    async def all_of_it() -> None:
        good, wild = engine.base().fork("good"), engine.base().fork("wild")
        await learn(good, "yes")
        wanted = await texts(good, sampling, asked=[short, medium])

        def diverge() -> None:
            for _, b in engine.network.bank.get(wild.adapter).tensors.values():
                b.data.fill_(float("nan"))

        engine.thread.submit(diverge).result()
        gate = threading.Event()
        engine.thread.submit(gate.wait)  # until all have asked
        together = when == "at the same time"
        spoilt = [(7, 8), long] if together else [long, (7, 8)]
        failing = asyncio.ensure_future(texts(wild, sampling, asked=spoilt))
        beside = asyncio.ensure_future(texts(good, sampling, asked=[short, medium])) if together else None
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(UserError, match="diverged"):
            await failing
        assert await (beside or texts(good, sampling, asked=[short, medium])) == wanted
        assert not engine.sampler.busy

    run(all_of_it())


def test_sampling_goes_on_while_another_adapter_is_trained(engine: TorchEngine) -> None:
    async def both() -> None:
        still, moving, lonely = (engine.base().fork(name) for name in ("still", "moving", "lonely"))
        await learn(still, "yes")
        sampling = Sampling(60, temperature=1.0, seed=1)
        wanted = await texts(still, sampling)
        got, _ = await asyncio.gather(texts(still, sampling), learn(moving, "no", 6))
        assert got == wanted
        await learn(lonely, "no", 6)
        for mine, theirs in zip(tensors(moving), tensors(lonely), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5)

    run(both())


# Once decided on the event loop, where a request still in the thread's queue is not seen.
@pytest.mark.parametrize("pause_seconds", [0.0, 0.15])
def test_a_completion_ends_on_the_weights_it_began_with(engine: TorchEngine, pause_seconds: float) -> None:
    async def race() -> None:
        policy, sampling = engine.base().fork("raced"), Sampling(40, temperature=1.0, seed=1)
        await learn(policy, "yes")
        before, version = await texts(policy, sampling), policy.version
        await policy.forward_backward(data(engine, "no"), losses.cross_entropy, normaliser=1)

        async def step() -> None:
            await asyncio.sleep(pause_seconds)
            await policy.optim_step(Adam(0.3))

        engine.thread.submit(lambda: time.sleep(0.1))  # the thread is busy: what is asked now is queued
        groups, _ = await asyncio.gather(policy.sample(prompts(engine), n=2, sampling=sampling), step())
        assert [[completion.text for completion in group] for group in groups] == before
        assert {completion.version for group in groups for completion in group} == {version}
        assert await texts(policy, sampling) != before, "the step is visible to the next request"

    run(race())


def test_cancelling_frees_the_rows_and_nobody_else_notices(engine: TorchEngine) -> None:
    async def cancel() -> None:
        policy, sampling = engine.base(), Sampling(30, temperature=1.0, seed=2)
        wanted = await texts(policy, sampling)
        long = [asyncio.ensure_future(policy.sample(prompts(engine), n=16, sampling=Sampling(400, 3.0, seed=i)))
                for i in range(4)]  # 192 of them: some wait
        await asyncio.sleep(0.05)
        mine = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.02)
        for request in long:
            request.cancel()
        assert all(isinstance(result, asyncio.CancelledError)
                   for result in await asyncio.gather(*long, return_exceptions=True))
        assert await mine == wanted
        for _ in range(100):
            if not engine.sampler.busy:
                break
            await asyncio.sleep(0.01)
        assert not engine.sampler.rows and not engine.sampler.waiting

    run(cancel())


# Once call_soon_threadsafe raised, as the asker's event loop was closed, and that ended the torch thread.
@pytest.mark.parametrize("streaming", [False, True])
def test_an_asker_who_leaves_with_his_event_loop_does_not_take_the_engine_along(
        engine: TorchEngine, streaming: bool) -> None:
    policy = engine.base()
    on_text = (lambda *_: None) if streaming else None

    async def leave(seconds: float, tokens: int) -> None:
        asked = policy.sample(prompts(engine), n=8, sampling=Sampling(tokens, 2.0), on_text=on_text)
        await asyncio.wait_for(asked, seconds)

    for i in range(10):
        with contextlib.suppress(TimeoutError):
            asyncio.run(leave(0.01 + 0.003 * i, 300 if streaming else 2 + i))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: run(texts(policy, Sampling(3))))
        assert answer.result(timeout=PATIENCE_SECONDS + 10)


def test_several_event_loops_share_an_engine(engine: TorchEngine) -> None:
    policy, sampling = engine.base(), Sampling(20, temperature=1.0, seed=3)
    wanted = run(texts(policy, sampling))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(texts(policy, sampling)), range(8)))
    assert results == [wanted] * 8


def test_what_does_not_fit_is_refused_before_anything_is_sampled(engine: TorchEngine) -> None:
    policy = engine.base()
    with pytest.raises(UserError, match="do not fit"):
        run(policy.sample([*prompts(engine), tuple(range(3, 300)) * 2], sampling=Sampling(4)))
    with pytest.raises(TypeError, match="tokens"):
        run(policy.sample([(Message("user", "hello"),)], sampling=Sampling(4)))
    assert run(texts(policy, Sampling(3)))


@pytest.mark.parametrize("bad", [(), (3, 4, 10_000), (3, -1)])
def test_a_bad_request_fails_alone(engine: TorchEngine, bad: tuple[int, ...]) -> None:
    async def crowd() -> None:
        policy, sampling = engine.base(), Sampling(60, temperature=2.0, seed=4)
        wanted = await texts(policy, sampling)
        good = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.03)
        refused = policy.sample([bad], sampling=Sampling(4))
        other, refusal = await asyncio.gather(good, refused, return_exceptions=True)
        assert isinstance(refusal, UserError | ValueError | IndexError)
        assert str(other) == str(wanted)  # text: a traceback through every future is more than pytest can print

    run(crowd())


def test_a_policy_dropped_while_it_writes_fails_alone(engine: TorchEngine) -> None:
    async def crowd() -> None:
        doomed, policy = engine.base().fork("doomed"), engine.base()
        sampling = Sampling(60, temperature=2.0, seed=4)
        wanted = await texts(policy, sampling)
        lost, good = asyncio.ensure_future(texts(doomed, sampling)), asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.03)
        doomed.drop()
        other, loss = await asyncio.gather(good, lost, return_exceptions=True)
        assert str(other) == str(wanted)
        assert isinstance(loss, UserError | RuntimeError | KeyError)

    run(crowd())


def test_a_loss_that_fails_leaves_the_policy_as_it_was(engine: TorchEngine) -> None:
    async def fail() -> None:
        policy, other = engine.base().fork("unlucky", LoRA(4)), engine.base().fork("lucky", LoRA(4))

        def broken(*_: Any) -> Any:
            raise ZeroDivisionError("a bug of mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            await policy.forward_backward(data(engine), broken)
        with pytest.raises(UserError, match="gradient"):
            await policy.optim_step(Adam(1e-2))
        await asyncio.gather(learn(policy, "yes"), learn(other, "yes"))
        for mine, theirs in zip(tensors(policy), tensors(other), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5)

    run(fail())


def test_a_gradient_that_is_not_finite_is_refused_and_forgotten(engine: TorchEngine) -> None:
    async def diverge() -> None:
        policy = engine.base().fork("diverged", LoRA(4))
        await learn(policy, "yes", 1)
        before = tensors(policy)

        def infinite(logprobs: Any, data: Any) -> Any:
            total, metrics = losses.cross_entropy(logprobs, data)
            return total * float("inf"), metrics

        await policy.forward_backward(data(engine), infinite)
        with pytest.raises(UserError, match="not finite"):
            await policy.optim_step(Adam(1e-2))
        for mine, was in zip(tensors(policy), before, strict=True):
            assert torch.equal(mine, was)
        await learn(policy, "yes", 1)

    run(diverge())


def test_scoring_checks_what_training_checks(engine: TorchEngine) -> None:
    policy = engine.base()
    with pytest.raises((UserError, ValueError)):
        run(policy.logprobs([Datum((5, 6, 7), (1.0, 1.0, 1.0))]))
    assert run(policy.logprobs([Datum((5, 6, 7), (0.0, 0.0, 0.0))])) == [[]]
    assert run(policy.logprobs([])) == []


def test_a_constrained_and_a_free_request_share_a_batch(engine: TorchEngine) -> None:
    labels, free = Output(labels=("yes", "no", "yes and no")), Sampling(25, temperature=1.0, seed=6)
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y", "a longer one"]}, "b": {"type": "boolean"}},
              "required": ["a", "b"], "additionalProperties": False}

    async def crowd() -> None:
        policy = engine.base()
        requests = [free, Sampling(25, 1.0, seed=6, output=labels),
                    Sampling(60, 1.0, seed=6, output=Output(schema=schema))]
        alone = [await texts(policy, sampling) for sampling in requests]
        assert await asyncio.gather(*(texts(policy, sampling) for sampling in requests)) == alone

    run(crowd())
