"""Memory that is bounded, failures that stay where they are, and the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch_crowd import data, prompts, run, texts

from posttrain import losses
from posttrain.engines.torch import drafts, memory, thread
from posttrain.engines.torch.cache import SlotCache
from posttrain.engines.torch.engine import TorchEngine
from posttrain.optimisers import Adam
from posttrain.types import Datum, Sampling


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


@pytest.mark.parametrize("stage", ["before the rows have their slots", "after"])
def test_what_fails_while_it_is_admitted_is_told_and_fails_alone(
        engine: TorchEngine, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crowd() -> None:
        policy, sampling = engine.base(), Sampling(60, temperature=2.0, seed=4)
        wanted, write = await texts(policy, sampling), engine.sampler._write
        good = asyncio.ensure_future(texts(policy, sampling))
        while not engine.sampler.rows:
            await asyncio.sleep(0.001)

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


def interleaved() -> list[Datum]:
    """Six rows each of two prompts of 100 tokens, by turns, with answers of 4 tokens."""
    beginnings = [tuple(3 + (i * i + 7 * i + start) % 390 for i in range(100)) for start in (1, 2)]
    answers = [(5 + i, *range(20, 23)) for i in range(6)]
    return [Datum((*own, *answer), (*[0.0] * 100, *[1.0] * 4)) for answer in answers for own in beginnings]


SORTED_TOKENS = 2 * (100 + 6 * 3)
"""Forwarded when each prompt of `interleaved` is read once: nothing is predicted from the last token of an answer."""


def test_rows_that_begin_alike_are_learnt_from_together(engine: TorchEngine) -> None:
    policy = engine.base().fork("learner")
    whole = run(policy.forward_backward(interleaved(), losses.cross_entropy))
    assert whole["forwarded_tokens"] == SORTED_TOKENS
    engine.trainer.micro_batch_tokens = 100 + 6 * 4  # as many as the rows of one prompt have
    parted = run(policy.forward_backward(interleaved(), losses.cross_entropy))
    assert parted["forwarded_tokens"] == SORTED_TOKENS
    assert parted["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_rows_that_begin_alike_are_scored_together(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, rows, sizes, forward = engine.base(), interleaved(), [], engine.network.forward
    alone = [run(policy.logprobs([row]))[0] for row in rows]

    def noted(tokens: Any, *rest: Any) -> Any:
        sizes.append(len(tokens))
        return forward(tokens, *rest)

    monkeypatch.setattr(engine.network, "forward", noted)
    monkeypatch.setattr(memory, "MOST_READ", 100 + 6 * 4)
    scored = run(policy.logprobs(rows))
    assert sizes == [SORTED_TOKENS // 2] * 2
    assert scored == [pytest.approx(own, abs=1e-4) for own in alone], "each at its own place"


def test_prompts_are_prefilled_in_calls_of_bounded_size(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crowd() -> None:
        policy, sizes, prefill = engine.base(), [], engine.network.prefill
        asked = [tuple(3 + (i * i + j * (i + 1)) % 390 for j in range(80)) for i in range(20)]
        wanted = [[completion.text for completion in group]
                  for group in await policy.sample(asked, n=3, sampling=Sampling(6, 1.0))]

        def noted(prompts: Any, *rest: Any) -> Any:
            sizes.append(sum(map(len, prompts)))
            return prefill(prompts, *rest)

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
    """Short and long prompts, short and long answers, arriving while others are under way."""
    policy = engine.base()
    asked = [tuple(3 + (i * i + j * (i + 1)) % 390 for j in range(5 + 31 * (i % 4))) for i in range(16)]
    asked += [asked[3][:60] + (i,) * 9 for i in range(9, 13)]  # these share a trunk

    async def crowd() -> list[list[list[str]]]:
        async def late(i: int) -> list[list[str]]:
            await asyncio.sleep(0.004 * i)
            return await texts(policy, Sampling(90 if i % 5 == 2 else 6, 1.5, seed=i), n=4, asked=asked[i : i + 2])

        return list(await asyncio.gather(*(late(i) for i in range(0, len(asked), 2))))

    wanted, held, reserve = run(crowd()), [0], SlotCache.reserve

    def noted(slots: SlotCache, *arguments: Any) -> None:
        reserve(slots, *arguments)
        held.append(slots.slots * slots.capacity)

    monkeypatch.setattr(SlotCache, "reserve", noted)
    for limit, most in ((2000, 2000), (10, 192)):
        monkeypatch.setattr(engine.sampler, "slot_tokens", limit)
        held.clear()
        assert run(crowd()) == wanted
        assert most / 2 < max(held) <= most, "as much as is allowed, or one alone"


def test_a_long_prompt_takes_room_from_others_only_while_it_is_under_way(engine: TorchEngine) -> None:
    async def crowd() -> int:
        policy, steps, step = engine.base(), 0, engine.sampler.step

        def counted(*arguments: Any) -> None:
            nonlocal steps
            steps += 1
            step(*arguments)

        engine.sampler.step = counted  # type: ignore[method-assign]
        long = asyncio.ensure_future(policy.sample([tuple(range(3, 303))], sampling=Sampling(4)))
        await asyncio.sleep(0.01)
        short = [tuple(3 + (i * i + j) % 390 for j in range(9)) for i in range(100)]
        await asyncio.gather(long, policy.sample(short, sampling=Sampling(9, 2.0)))
        return steps

    engine.sampler.slot_tokens = 20 * 32
    assert run(crowd()) < 120, "at 20 short ones at a time: 5 x 9 steps; 2 at a time, as beside the long one: 450"


def test_what_completions_took_is_kept_for_the_next_and_given_back_in_time(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    held = engine.sampler.stems.slots

    async def sampled() -> None:
        await engine.base().sample(prompts(engine), n=4, sampling=Sampling(8, temperature=1.0, seed=1))

    run(sampled())
    kept = [tensor.data_ptr() for layer in held.layers for tensor in layer]
    assert kept
    run(sampled())
    assert [tensor.data_ptr() for layer in held.layers for tensor in layer] == kept, "nothing is laid out anew"
    monkeypatch.setattr(thread, "REST_SECONDS", 0.05)
    run(sampled())
    for _ in range(200):
        if not held.layers:
            return
        time.sleep(0.05)
    raise AssertionError("the memory is still held ten seconds later")


def test_closing_tells_all_who_wait(tiny_model_folder: Path) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")

    async def leave() -> None:
        policy = engine.base().fork("left")
        await policy.forward_backward(data(engine), losses.cross_entropy)
        asked = [asyncio.ensure_future(policy.sample(prompts(engine), n=50, sampling=Sampling(400, 3.0))),
                 asyncio.ensure_future(policy.optim_step(Adam(0.1)))]
        while not (engine.sampler.rows and engine.sampler.waiting):
            await asyncio.sleep(0.001)
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
