"""Trainings in lockstep: what several adapters learn from at one time is one forward call, and each learns as alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_crowd import data, run, tensors

from posttrain import losses
from posttrain.engines.torch import heap
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import LoRA, Metrics, Sampling, UserError

ANSWERS = ("yes", "no", "yes no", "no yes no")
SHAPES = (LoRA(4), LoRA(8, alpha=4), LoRA(2, layers=0.5), LoRA(4, layers=0.5))


@pytest.fixture
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


@pytest.fixture
def calls(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The adapters of each forward call that is trained on."""
    found: list[list[str]] = []
    trained_logprobs = engine.network.trained_logprobs

    def noted(batch: Any, adapters: Sequence[str]) -> Any:
        found.append(sorted({*adapters}))
        return trained_logprobs(batch, adapters)

    monkeypatch.setattr(engine.network, "trained_logprobs", noted)
    return found


def forks(engine: TorchEngine, shapes: Sequence[LoRA] = SHAPES) -> list[TorchPolicy]:
    return [engine.base().fork(f"one of {len(shapes)}", shape, seed=3) for shape in shapes]


async def learn(policy: TorchPolicy, answer: str, steps: int = 3) -> list[Metrics]:
    found = []
    for _ in range(steps):
        metrics = await policy.forward_backward(data(policy.engine, answer), losses.cross_entropy, normaliser=9)
        found.append(metrics | await policy.optim_step(Adam(3e-2)))
    return found


async def all_of(works: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*works, return_exceptions=True), 60)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_learns_as_alone(engine: TorchEngine, calls: list[list[str]], threads: int) -> None:
    """Adapters of other ranks, on other layers, with other data."""
    async def both() -> None:
        alone, together = forks(engine), forks(engine)
        wanted = [await learn(policy, answer) for policy, answer in zip(alone, ANSWERS, strict=True)]
        calls.clear()
        together[0].keep_step(together[1:])
        found = await all_of([learn(policy, answer) for policy, answer in zip(together, ANSWERS, strict=True)])
        names = sorted(policy.adapter for policy in together)
        assert len(calls) == 3 * threads and sorted(chain(*calls[:threads])) == names
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine == [pytest.approx(metrics, rel=1e-4) for metrics in theirs]
        for mine, theirs in zip(together, alone, strict=True):
            for one, other in zip(tensors(mine), tensors(theirs), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    engine.network.threads.most = threads
    run(both())


def test_small_batches_meet_and_none_is_larger_than_may_be(engine: TorchEngine, calls: list[list[str]]) -> None:
    async def in_step() -> None:
        policies = forks(engine)
        policies[0].keep_step(policies[1:])
        one = len(data(engine, "no")) * max(len(datum.tokens) for datum in data(engine, "no"))
        engine.trainer.micro_batch_tokens, engine.network.threads.most = 2 * one, 1
        await all_of([learn(policy, "no", 1) for policy in policies])
        assert 1 < len(calls) < 4 and sorted(chain(*calls)) == sorted(policy.adapter for policy in policies)
        calls.clear()
        engine.trainer.micro_batch_tokens = 1
        metrics = await all_of([learn(policy, "no", 1) for policy in policies])
        assert len(calls) == 4 * len(data(engine, "no"))
        assert {each["trained_tokens"] for (each,) in metrics} == {metrics[0][0]["trained_tokens"]}

    run(in_step())


@pytest.mark.parametrize("micro_batch_tokens", [4096, 1])
def test_who_fails_fails_alone(engine: TorchEngine, micro_batch_tokens: int) -> None:
    """And what was computed before it failed is not learnt twice."""
    async def in_step() -> None:
        right, wrong, lonely = forks(engine, [LoRA(4)] * 3)
        engine.trainer.micro_batch_tokens = micro_batch_tokens
        right.keep_step([wrong])

        def broken(logprobs: Any, batch: Any) -> Any:  # noqa: ARG001
            raise ZeroDivisionError("in a loss")

        learnt, failed = await all_of(
            [learn(right, "no", steps=1), wrong.forward_backward(data(engine), broken)])
        assert isinstance(failed, ZeroDivisionError)
        (alone,) = await learn(lonely, "no", steps=1)
        assert learnt == [pytest.approx(alone, rel=1e-4)]
        with pytest.raises(Exception, match="gradient"):
            await wrong.optim_step(Adam(0.1))

    run(in_step())


def test_one_that_has_diverged_spoils_no_other(engine: TorchEngine) -> None:
    async def in_step() -> None:
        good, wild, other, lonely = forks(engine, [LoRA(4)] * 4)
        for a, _ in engine.network.bank.get(wild.adapter).tensors.values():
            a.data.fill_(float("nan"))
        good.keep_step([wild, other])
        first, diverged, second = await all_of([learn(policy, "no", steps=1) for policy in (good, wild, other)])
        (alone,) = await learn(lonely, "no", steps=1)
        assert first == second == [pytest.approx(alone, rel=1e-4)]
        assert "diverged" in str(diverged) or "finite" in str(diverged)

    run(in_step())


def test_what_is_cancelled_while_it_is_computed_is_not_learnt(engine: TorchEngine) -> None:
    async def in_step() -> None:
        hasty, patient, lonely = forks(engine, [LoRA(4)] * 3)
        hasty.keep_step([patient])
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(logprobs: Any, batch: Any) -> Any:
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.2)
            return losses.cross_entropy(logprobs, batch)

        gives_up = asyncio.ensure_future(hasty.forward_backward(data(engine, "no"), slow))
        learns = asyncio.ensure_future(learn(patient, "no", steps=1))
        await begun.wait()
        gives_up.cancel()
        found = await all_of([gives_up, learns])
        (alone,) = await learn(lonely, "no", steps=1)
        assert isinstance(found[0], asyncio.CancelledError) and found[1] == [pytest.approx(alone, rel=1e-4)]
        with pytest.raises(Exception, match="gradient"):
            await hasty.optim_step(Adam(0.1))

    run(in_step())


def test_a_second_lesson_before_the_first_is_learnt_is_refused(engine: TorchEngine) -> None:
    async def in_step() -> None:
        hasty, late = forks(engine, [LoRA(4)] * 2)
        leave = hasty.keep_step([late])
        first = asyncio.ensure_future(learn(hasty, "no", steps=1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="await each"):
            await learn(hasty, "no", steps=1)
        leave(late)
        await all_of([first])

    run(in_step())


def test_nobody_waits_for_who_has_left(engine: TorchEngine, calls: list[list[str]]) -> None:
    async def in_step() -> None:
        short, long = forks(engine, [LoRA(4)] * 2)
        leave = short.keep_step([long])

        async def one_step() -> None:
            await learn(short, "yes", steps=1)
            await asyncio.sleep(0.05)
            assert len(calls) == 1, "it is waited for"
            leave(short)

        engine.network.threads.most = 1
        await all_of([one_step(), learn(long, "no", steps=3)])
        assert calls == [sorted([short.adapter, long.adapter]), [long.adapter], [long.adapter]]
        await learn(short, "yes", steps=1)
        assert calls[-1] == [short.adapter]

    run(in_step())


async def learn_and_answer(policy: TorchPolicy) -> int:
    """How many tokens it answers."""
    await learn(policy, "yes", steps=1)
    ((completion,),) = await policy.sample([(1, 2, 3)], sampling=Sampling(2))
    return completion.completion_tokens


def asked_together(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The adapters of each call in which prompts are read."""
    found: list[list[str]] = []
    prefill = engine.network.prefill

    def noted(prompts: Any, adapters: Sequence[str], *rest: Any) -> Any:
        found.append(sorted(adapters))
        return prefill(prompts, adapters, *rest)

    monkeypatch.setattr(engine.network, "prefill", noted)
    return found


def test_what_lessons_took_goes_back_before_they_are_judged(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: when all ask; and they ask together, though one leaves and one has shorter lessons."""
    given: list[bool] = []
    monkeypatch.setattr(heap, "give_back", lambda: given.append(engine.sampler.busy))
    reads = asked_together(engine, monkeypatch)

    async def in_step() -> None:
        *policies, short, failed = forks(engine, [LoRA(4)] * 4)
        leave = policies[0].keep_step([*policies[1:], short, failed])
        leave(failed)
        asks = asyncio.ensure_future(short.sample([(1, 2, 3)], sampling=Sampling(2)))
        await asyncio.sleep(0.05)
        assert not reads, "it waits for the others"
        assert await all_of([learn_and_answer(policy) for policy in policies]) == [2] * 2
        assert len((await asks)[0][0].tokens) == 2
        assert given == [False] and reads == [sorted(policy.adapter for policy in (*policies, short))]
        await learn_and_answer(short)  # by itself
        assert given == [False] and reads[1:] == [[short.adapter]]

    run(in_step())


def test_nobody_waits_to_ask_for_who_is_gone(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = asked_together(engine, monkeypatch)

    async def in_step() -> None:
        asks, cancelled, dropped, left = forks(engine, [LoRA(4)] * 4)
        leave = asks.keep_step([cancelled, dropped, left])
        waiting = [asyncio.ensure_future(learn_and_answer(policy)) for policy in (asks, cancelled, dropped)]
        learns = asyncio.ensure_future(learn(left, "no", steps=1))
        await all_of([learns])
        await asyncio.sleep(0.05)
        waiting[1].cancel()
        dropped.drop()
        assert not reads
        leave(left)
        answered, *others = await all_of(waiting)
        assert answered == 2 and reads == [[asks.adapter]]
        assert isinstance(others[0], asyncio.CancelledError) and "was dropped" in str(others[1])

    run(in_step())


def test_who_asks_in_step_is_told_that_the_engine_was_closed(engine: TorchEngine) -> None:
    async def in_step() -> None:
        asks, late = forks(engine, [LoRA(4)] * 2)
        asks.keep_step([late])
        waits = asyncio.ensure_future(asks.sample([(1, 2, 3)], sampling=Sampling(2)))
        await asyncio.sleep(0)
        engine.close()
        (told,) = await all_of([waits])
        assert "closed" in str(told)

    run(in_step())


def test_who_asks_and_is_dropped_is_told_and_who_is_dropped_is_waited_for_no_more(engine: TorchEngine) -> None:
    async def in_step() -> None:
        asks, dropped, gone = forks(engine, [LoRA(4)] * 3)
        asks.keep_step([dropped, gone])
        waits = [asyncio.ensure_future(policy.sample([(1, 2, 3)], sampling=Sampling(2))) for policy in (asks, dropped)]
        await asyncio.sleep(0)
        dropped.drop()
        (told,) = await all_of([waits[1]])
        assert "was dropped" in str(told) and not waits[0].done()
        gone.drop()
        ((((completion,),),)) = await all_of([waits[0]])
        assert len(completion.tokens) == 2

    run(in_step())


def test_a_lesson_given_up_and_a_prompt_refused_hold_no_answer_up(engine: TorchEngine) -> None:
    async def in_step() -> None:
        hasty, patient, refused = forks(engine, [LoRA(4)] * 3)
        hasty.keep_step([patient, refused])
        gives_up = asyncio.ensure_future(learn(hasty, "yes"))
        await asyncio.sleep(0)
        gives_up.cancel()
        with pytest.raises(UserError, match="a prompt is empty"):
            await refused.sample([()], sampling=Sampling(2))
        answers = await all_of([policy.sample([(1, 2, 3)], sampling=Sampling(2)) for policy in (hasty, patient)])
        assert [len(completion.tokens) for ((completion,),) in answers] == [2, 2]

    run(in_step())


def test_who_is_cancelled_or_dropped_holds_nobody_up(engine: TorchEngine, calls: list[list[str]]) -> None:
    async def in_step() -> None:
        cancelled, dropped, left = forks(engine, [LoRA(4)] * 3)
        leave = cancelled.keep_step([dropped, left])
        gives_up = asyncio.ensure_future(learn(cancelled, "yes"))
        await asyncio.sleep(0)
        gives_up.cancel()
        waits = asyncio.ensure_future(learn(dropped, "yes", steps=1))
        await asyncio.sleep(0)
        dropped.drop()
        learns = asyncio.ensure_future(learn(left, "no", steps=1))
        found = await all_of([gives_up, waits, learns])
        leave(cancelled)
        assert isinstance(found[0], asyncio.CancelledError) and "was dropped" in str(found[1])
        assert found[2][0]["trained_tokens"] > 0 and calls[-1] == [left.adapter]

    run(in_step())
