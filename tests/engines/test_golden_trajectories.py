"""Loss and gradient norm of each algorithm, step by step: those of plain PEFT and AdamW on separate sequences, however a
batch is cut and packed and however many adapters learn at once; and those of the day they were written down."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import batch, logprobs, make, moved, open_engine, peft_parameters, plain_logprobs, with_peft

from posttrain import losses
from posttrain.engines.torch import forest, merged_attention
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.techniques import _groups, dapo, dr_grpo, grpo
from posttrain.types import Datum, LoRA

STEPS, RATE = 4, 1e-2
SMALL = LoRA(rank=4, alpha=6)
LONGEST = 30
ADVANTAGES = (1.5, -0.5, -1.0, 0.75, -0.75, 0.9, -0.9)
Trajectory = list[tuple[float, float]]

GOLDEN: dict[str, Trajectory] = {
    "sft": [(6.2395, 0.60925), (5.9407, 0.68072), (5.7097, 0.61113), (5.5188, 0.74089)],
    "dpo": [(0.69315, 0.63305), (0.47226, 0.45346), (0.3199, 0.31326), (0.22906, 0.32592)],
    "grpo": [(-0.0049205, 0.34901), (-0.027009, 0.42124), (-0.075192, 0.22031), (-0.081286, 0.15464)],
    "grpo with kl": [(0.10144, 0.30387), (0.10792, 0.50333), (0.052521, 0.2069), (0.054382, 0.22161)],
    "dr_grpo": [(0.058882, 0.17732), (0.051225, 0.25402), (0.023212, 0.095982), (0.022552, 0.10023)],
    "dapo": [(0.097741, 0.25695), (0.05365, 0.35012), (0.030726, 0.2478), (0.023519, 0.16097)],
}


def answered(policy: TorchPolicy, average: _groups.Average) -> list[Datum]:
    """The batch as answers with advantages; the sampler's log-probabilities are those that the policy began with, and a
    little off, so that some ratios are clipped."""
    data = batch()
    data = [replace(datum, weights=tuple(float(weight != 0) for weight in datum.weights)) for datum in data]
    found = []
    for i, (datum, own) in enumerate(zip(data, logprobs(policy, data), strict=True)):
        sampled = [0.0] * len(datum.tokens)
        for place, value in zip(datum.trained, own.tolist(), strict=True):
            sampled[place] = value + 0.05 * ((place + i) % 9 - 4)
        share = 1 / len(datum.trained) if average == "answers" else 1.0
        found.append(replace(
            datum, weights=tuple(share * weight for weight in datum.weights), logprobs=tuple(sampled),
            reference_logprobs=tuple(sampled), advantages=(ADVANTAGES[i],) * len(datum.tokens)))
    return found


def in_pairs(policy: TorchPolicy) -> list[Datum]:
    data = [replace(datum, group=f"pair {i // 2}") for i, datum in enumerate(batch()[:6])]
    found = []
    for datum, own in zip(data, logprobs(policy, data), strict=True):
        by_place = dict(zip(datum.trained, own.tolist(), strict=True))
        found.append(replace(datum, reference_logprobs=tuple(by_place.get(i, 0.0) for i in range(len(datum.tokens)))))
    return found


def work(algorithm: str, policy: TorchPolicy) -> tuple[list[Datum], Callable[..., Any], float]:
    """(data, loss, normaliser) of one step."""
    if algorithm == "sft":
        data = batch()
        return data, losses.cross_entropy, sum(sum(datum.weights) for datum in data)
    if algorithm == "dpo":
        return in_pairs(policy), losses.dpo(0.1), 3.0
    config = {"grpo": grpo.Config(average="answers"), "grpo with kl": grpo.Config(kl=0.3), "dr_grpo": dr_grpo.Config(),
              "dapo": dapo.Config()}[algorithm]
    data = answered(policy, config.average)
    loss = losses.clipped_policy_gradient(clip_low=config.clip_low, clip_high=config.clip_high, kl=config.kl)
    return data, loss, _groups.normaliser(data, config.average, LONGEST)


async def learnt(policy: TorchPolicy, data: Sequence[Datum], loss: Any, normaliser: float) -> Trajectory:
    found = []
    for _ in range(STEPS):
        metrics = await policy.forward_backward(data, loss, normaliser=normaliser)
        metrics |= await policy.optim_step(Adam(RATE))
        found.append((metrics["loss"], metrics["gradient_norm"]))
    return found


def by_peft(model: Any, data: Sequence[Datum], loss: Any, normaliser: float) -> Trajectory:
    """The same with nothing of ours but the loss."""
    parameters = [*peft_parameters(model).values()]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    found = []
    for _ in range(STEPS):
        total, _ = loss(plain_logprobs(model, data), data)
        (total / normaliser).backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        found.append((total.item() / normaliser, norm.item()))
    return found


pytestmark = pytest.mark.usefixtures("either_way")


@pytest.fixture(scope="module")
def start(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TorchEngine, Path]:
    model, folder = make("llama"), tmp_path_factory.mktemp("start")
    engine = open_engine(copy.deepcopy(model), tiny_tokenizer)
    asyncio.run(asyncio.run(moved(engine, SMALL)).save(folder))
    return model, engine, folder


def one_adapter(engine: TorchEngine, folder: Path, algorithm: str) -> Trajectory:
    policy = engine.load(folder)
    return asyncio.run(learnt(policy, *work(algorithm, policy)))


def same(found: Trajectory, wanted: Trajectory, tolerance: float = 2e-4) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=1e-6)


ALGORITHMS = ["sft", "dpo", "grpo", "grpo with kl", "dr_grpo", "dapo"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_trajectories_are_golden_and_those_of_peft(algorithm: str, start: tuple[Any, TorchEngine, Path]) -> None:
    model, engine, folder = start
    found = one_adapter(engine, folder, algorithm)
    same(found, by_peft(with_peft(model, folder), *work(algorithm, engine.load(folder))))
    same(found, GOLDEN[algorithm], tolerance=1e-3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_they_do_not_depend_on_how_a_batch_is_cut_and_packed(
        algorithm: str, start: tuple[Any, TorchEngine, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine, folder = start
    wanted = one_adapter(engine, folder, algorithm)
    monkeypatch.setattr(engine.trainer, "micro_batch_tokens", 50)
    monkeypatch.setattr(merged_attention, "BLOCK_TOKENS", 16)
    monkeypatch.setattr(forest, "SHORTEST_SHARED", 3)
    policy = engine.load(folder)
    data, loss, normaliser = work(algorithm, policy)
    backwards = data[::-1] if algorithm != "dpo" else data[4:] + data[2:4] + data[:2]
    same(asyncio.run(learnt(policy, backwards, loss, normaliser)), wanted)


@pytest.mark.parametrize("in_step", [True, False], ids=["in one batch", "in turns"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_they_do_not_depend_on_who_else_learns(
        algorithm: str, in_step: bool, start: tuple[Any, TorchEngine, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine, folder = start
    together: set[int] = set()  # how many adapters there were in a call
    trained_logprobs = engine.network.trained_logprobs
    monkeypatch.setattr(engine.network, "trained_logprobs", lambda batch, adapters: together.add(
        len({*adapters})) or trained_logprobs(batch, adapters))
    wanted = one_adapter(engine, folder, algorithm)
    policies = [engine.load(folder) for _ in ALGORITHMS]
    works = [work(each, policy) for each, policy in zip(ALGORITHMS, policies, strict=True)]

    async def all_at_once() -> list[Trajectory]:
        if in_step:
            policies[0].keep_step(policies[1:])
        return await asyncio.gather(*(learnt(policy, *what) for policy, what in zip(policies, works, strict=True)))

    same(asyncio.run(all_at_once())[ALGORITHMS.index(algorithm)], wanted)
    assert (max(together) > 1) == in_step
