"""Many things at once: adapters, training, cancellation, failure.  Nobody notices the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import losses
from posttrain.engines.torch.cache import SlotCache
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.engines.torch.sampler import MOST_ROWS
from posttrain.types import Adam, Datum, LoRA, Message, Output, Sampling, UserError

QUESTIONS = ["where is my order?", "I was charged twice", "the printer is down"]
PATIENCE_SECONDS = 10


@pytest.fixture
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    """One of its own for each test: these may leave an engine broken."""
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run, for a thread that may never answer."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE_SECONDS))


def prompts(engine: TorchEngine) -> list[Any]:
    return [engine.renderer.prompt([Message("user", question)]) for question in QUESTIONS]


def data(engine: TorchEngine, answer: str = "yes") -> list[Datum]:
    return [engine.renderer.datum([Message("user", question), Message("assistant", answer)]) for question in QUESTIONS]


async def learn(policy: TorchPolicy, answer: str, steps: int = 3) -> None:
    for _ in range(steps):
        await policy.forward_backward(data(policy.engine, answer), losses.cross_entropy, normaliser=9)
        await policy.optim_step(Adam(3e-2))


async def texts(policy: TorchPolicy, sampling: Sampling, n: int = 2, asked: Sequence[Any] = ()) -> list[list[str]]:
    return [[completion.text for completion in group]
            for group in await policy.sample(asked or prompts(policy.engine), n=n, sampling=sampling)]


def tensors(policy: TorchPolicy) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in policy.engine.network.bank.adapters[policy.adapter].parameters()]


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


# ---- weights change between completions, and soon

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
        await asyncio.sleep(0.03)
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
        await policy.forward_backward(data(engine, "no"), losses.cross_entropy, normaliser=1)
        sampling = Sampling(40, temperature=1.0, seed=1)
        asked = asyncio.ensure_future(policy.sample(prompts(engine), n=50, sampling=sampling))  # 150 of 128 at a time
        while not engine.sampler.rows:
            await asyncio.sleep(0.001)
        beside = asyncio.ensure_future(texts(other, Sampling(10)))  # another adapter is not held
        await policy.optim_step(Adam(0.3))
        versions = [completion.version for group in await asked for completion in group]
        assert set(versions) == {0, 1} and versions.count(0) == MOST_ROWS
        assert await beside == await texts(other, Sampling(10))

    run(crowd())


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_step_that_is_not_taken_holds_nobody_back(engine: TorchEngine, how: str) -> None:
    async def crowd() -> None:
        policy, sampling = engine.base().fork("patient"), Sampling(60, temperature=2.0, seed=4)
        wanted = await texts(policy, sampling)
        first = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.02)
        if how == "is cancelled":
            await policy.forward_backward(data(engine), losses.cross_entropy)
        step = asyncio.ensure_future(policy.optim_step(Adam(0.1)))  # without a gradient it fails
        second = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.01)
        if how == "is cancelled":
            step.cancel()
        results = await asyncio.gather(first, second, step, return_exceptions=True)
        assert results[:2] == [wanted, wanted]
        assert isinstance(results[2], UserError if how == "fails" else asyncio.CancelledError)
        assert policy.version == 0

    run(crowd())


def test_the_verbs_of_an_adapter_run_in_the_order_of_their_calls(engine: TorchEngine) -> None:
    """As the clients of a remote engine call them: without waiting for one to ask for the next."""
    async def both() -> None:
        waited, piped = engine.base().fork("waited", LoRA(4)), engine.base().fork("piped", LoRA(4))
        engine.micro_batch_tokens = 1  # many jobs for each call
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
        engine.micro_batch_tokens, calls = 1, []

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


# ---- failure, and the end

@pytest.mark.parametrize("stage", ["before the rows have their slots", "after"])
def test_what_fails_while_it_is_admitted_is_told_and_fails_alone(
        engine: TorchEngine, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crowd() -> None:
        policy, sampling = engine.base(), Sampling(60, temperature=2.0, seed=4)
        wanted, write = await texts(policy, sampling), engine.sampler._write
        good = asyncio.ensure_future(texts(policy, sampling))
        await asyncio.sleep(0.03)
        assert engine.sampler.rows

        def full(*arguments: Any) -> None:
            if stage != "after" or any(row.prompt[0] == 7 for stem in arguments[0] for row in stem.rows):
                raise MemoryError("out of memory")
            write(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(*((engine.sampler, "_write") if stage == "after" else (engine.network, "prefill")), full)
            with pytest.raises(MemoryError, match="out of memory"):
                await asyncio.wait_for(policy.sample([(7, 8, 9)], n=3, sampling=Sampling(5)), 3)
        assert await good == wanted
        assert not engine.sampler.busy and await texts(policy, sampling) == wanted

    run(crowd())


def test_prompts_are_prefilled_in_calls_of_bounded_size(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crowd() -> None:
        policy, sizes, prefill = engine.base(), [], engine.network.prefill
        asked = [tuple(3 + (i * i + j * (i + 1)) % 390 for j in range(80)) for i in range(20)]
        wanted = [[completion.text for completion in group]
                  for group in await policy.sample(asked, n=3, sampling=Sampling(6, 1.0))]

        def noted(prompts: Any, adapter: str, trunk: Any) -> Any:
            sizes.append(sum(map(len, prompts)))
            return prefill(prompts, adapter, trunk)

        monkeypatch.setattr(engine.network, "prefill", noted)
        engine.sampler.prefill_tokens = 200
        groups = await policy.sample(asked, n=3, sampling=Sampling(6, 1.0))
        assert sizes == [160] * 10, "two prompts at a time, each once for its three completions"
        assert [[completion.text for completion in group] for group in groups] == wanted
        engine.sampler.prefill_tokens = 10
        sizes.clear()
        assert await policy.sample(asked[:3], sampling=Sampling(2)) and sizes == [80] * 3, "one goes in any case"

    run(crowd())


def test_completions_under_way_are_held_in_bounded_memory(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crowd() -> None:
        policy, held, reserve = engine.base(), [], SlotCache.reserve
        asked = [tuple(3 + (i * i + j * (i + 1)) % 390 for j in range(46 + i)) for i in range(12)]
        wanted = await texts(policy, Sampling(6, 1.0), asked=asked)

        def noted(slots: SlotCache, *arguments: Any) -> None:
            reserve(slots, *arguments)
            held.append(len(slots.layers[0][0]) * slots.capacity)

        monkeypatch.setattr(SlotCache, "reserve", noted)
        monkeypatch.setattr(engine.sampler, "slot_tokens", 500)
        assert await texts(policy, Sampling(6, 1.0), asked=asked) == wanted
        assert 300 < max(held) <= 500
        held.clear()
        monkeypatch.setattr(engine.sampler, "slot_tokens", 10)
        assert await texts(policy, Sampling(6, 1.0), asked=asked) == wanted
        assert max(held) == 64, "one goes in any case"

    run(crowd())


def test_closing_tells_all_who_wait(tiny_model_folder: Path) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")

    async def leave() -> None:
        policy = engine.base().fork("left")
        await policy.forward_backward(data(engine), losses.cross_entropy)
        asked = [asyncio.ensure_future(policy.sample(prompts(engine), n=50, sampling=Sampling(400, 3.0))),
                 asyncio.ensure_future(policy.optim_step(Adam(0.1)))]
        await asyncio.sleep(0.1)
        assert engine.sampler.rows and engine.sampler.waiting
        engine.close()
        results = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 3)
        assert all(isinstance(result, RuntimeError) and "closed" in str(result) for result in results)
        for verb in (policy.sample(prompts(engine), sampling=Sampling(2)), policy.logprobs(data(engine))):
            with pytest.raises(RuntimeError, match="closed"):
                await asyncio.wait_for(verb, 3)
        with pytest.raises(RuntimeError, match="closed"):
            engine.base().fork("too late")
        engine.close()

    run(leave())


def test_when_one_completion_of_a_request_fails_the_others_are_not_written_for_nobody(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        engine.sampler.prefill_tokens, prefill, calls = 1, engine.network.prefill, []

        def second_fails(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError("out of memory")
            return prefill(*arguments)

        monkeypatch.setattr(engine.network, "prefill", second_fails)
        with pytest.raises(MemoryError):
            await engine.base().sample(prompts(engine), sampling=Sampling(400, 3.0))
        await asyncio.sleep(0.1)
        assert not engine.sampler.busy

    run(fail())
