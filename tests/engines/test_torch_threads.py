"""Parts of a batch are computed side by side, and nothing is different for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_models import EXACT, batch, gradients, logprobs, make, moved, open_engine, relative_error

from posttrain import losses
from posttrain.engines.torch import forest
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.threads import Threads
from posttrain.optimisers import Adam
from posttrain.types import Datum, LoRA, Metrics, Sampling

CPU = torch.device("cpu")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the number of threads was set, and to what, by any thread; two to begin with."""
    taken = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken[-1])
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    return taken


@pytest.fixture(params=EXACT)
def engine(request: pytest.FixtureRequest, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
           ) -> Iterator[TorchEngine]:
    """An engine that would part the smallest batch, if it had cores."""
    monkeypatch.setattr(forest, "SMALLEST_PART", 1)
    monkeypatch.setattr(forest, "MOST_SHARED", 100)
    engine = open_engine(make(request.param), tiny_tokenizer)
    yield engine
    engine.close()


def on(engine: TorchEngine, cores: int) -> TorchEngine:
    engine.network.threads.close()
    engine.network.threads = Threads(CPU)
    engine.network.threads.most = cores
    return engine


def test_small_calls_take_one_thread_of_two(cores: list[int]) -> None:
    threads = Threads(CPU)
    for tokens in (3, 256, 257, 5000, 1):
        threads.take(tokens)
    assert cores == [2, 1, 2, 1], "one, one, two, two, one: set only where it changes"
    cores[:] = [8]
    Threads(CPU).take(1)
    assert cores == [8]


def test_a_part_has_its_share_of_the_threads(cores: list[int]) -> None:
    cores[:] = [8]
    threads = Threads(CPU)
    taken = []

    def part() -> None:
        threads.take(5000)
        taken.append(cores[-1])
        cores.append(8)

    threads.side_by_side([part, part, part])
    assert taken == [2, 2, 2]
    part()
    assert taken[-1] == 8, "afterwards all are for this call"
    assert Threads(torch.device("cuda")).most == 1, "a device of its own is not helped by cores"


def test_results_come_in_order_and_the_parts_meet() -> None:
    threads = Threads(CPU)
    both = threading.Barrier(2, timeout=60)

    def part(number: int) -> tuple[int, bool]:
        both.wait()  # never passed one after the other
        return number, torch.is_inference_mode_enabled()

    assert threads.side_by_side([lambda: part(0), lambda: part(1)]) == [(0, False), (1, False)]
    with torch.inference_mode():
        assert threads.side_by_side([lambda: part(0), lambda: part(1)]) == [(0, True), (1, True)]
    threads.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_what_a_part_raises_is_raised_when_all_have_ended(failing: int) -> None:
    threads, ended = Threads(CPU), []

    def part(number: int) -> None:
        if number == failing:
            raise MemoryError
        ended.append(number)

    with pytest.raises(MemoryError):
        threads.side_by_side([lambda: part(0), lambda: part(1)])
    assert ended == [1 - failing]


def laid_out(data: Sequence[Datum]) -> int:
    """Tokens that are forwarded for some data: of each distinct prefix once."""
    return len(forest.plant([datum.tokens[:-1] for datum in data], [""] * len(data)).tokens)


def test_training_scoring_and_sampling_are_the_same_in_parts(engine: TorchEngine) -> None:
    policy, data = asyncio.run(moved(engine, LoRA(rank=4, alpha=6))), batch()
    prompts = [datum.tokens for datum in data]
    calls: list[Sequence[Datum]] = []

    def counting(batch_logprobs: Sequence[Tensor], part: Sequence[Datum]) -> tuple[Tensor, Metrics]:
        calls.append(part)
        return losses.cross_entropy(batch_logprobs, part)

    def everything(cores: int) -> tuple[Metrics, dict[str, Tensor], list[Tensor], list[tuple[int, ...]]]:
        on(engine, cores)
        metrics = asyncio.run(policy.forward_backward(data, counting, normaliser=7))
        gradient = {name: value.clone() for name, value in gradients(engine, policy).items()}
        asyncio.run(policy.optim_step(Adam(0.0)))  # another version: nothing cached is used again
        groups = asyncio.run(policy.sample(prompts, n=2, sampling=Sampling(9, temperature=0)))
        return metrics, gradient, logprobs(policy, data), [each.tokens for group in groups for each in group]

    metrics, gradient, scores, answers = everything(1)
    assert [*map(len, calls)] == [len(data)]
    assert metrics.pop("forwarded_tokens") == laid_out(calls[0])
    calls.clear()
    parted_metrics, parted_gradient, parted_scores, parted_answers = everything(3)
    assert len(calls) == 3
    assert sum(map(len, calls)) == len(data)
    assert parted_metrics.pop("forwarded_tokens") == sum(map(laid_out, calls)) > laid_out(data), "what is shared, again"
    assert parted_metrics == pytest.approx(metrics, rel=1e-5)
    assert all(relative_error(parted_gradient[name], wanted) < 1e-4 for name, wanted in gradient.items())
    assert all(relative_error(got, wanted) < 1e-4 for got, wanted in zip(parted_scores, scores, strict=True))
    assert parted_answers == answers


def test_upper_layers_are_entered_in_each_part_by_itself(engine: TorchEngine) -> None:
    policy, data = asyncio.run(moved(engine, LoRA(rank=4, alpha=6, layers=0.5))), batch()
    kept, found = engine.network.lower, []
    for cores, forget in ((1, True), (3, True), (3, False)):
        if forget:
            kept.forget(policy.adapter)
        on(engine, cores)
        asyncio.run(policy.forward_backward(data, losses.cross_entropy, normaliser=7))
        found.append({name: value.clone() for name, value in gradients(engine, policy).items()})
        asyncio.run(policy.optim_step(Adam(0.0)))
    wanted = found[0]
    assert all(relative_error(other[name], wanted[name]) < 1e-4 for other in found[1:] for name in wanted)
    assert kept.bytes == sum(states.nbytes for states in kept.kept.values())


def test_when_one_part_fails_the_gradient_is_what_it_was(engine: TorchEngine) -> None:
    policy, data = asyncio.run(moved(engine, LoRA(rank=4, alpha=6))), batch()
    on(engine, 3)
    asyncio.run(policy.forward_backward(data, losses.cross_entropy))
    before = {name: value.clone() for name, value in gradients(engine, policy).items()}

    def broken(batch_logprobs: Sequence[Tensor], part: Sequence[Datum]) -> tuple[Tensor, Metrics]:
        if any(datum is data[-1] for datum in part):
            raise ArithmeticError
        return losses.cross_entropy(batch_logprobs, part)

    with pytest.raises(ArithmeticError):
        asyncio.run(policy.forward_backward(data, broken))
    after = gradients(engine, policy)
    assert all(torch.equal(after[name], value) for name, value in before.items())
