"""In deterministic mode a completion is the same to the bit whatever else is written beside it, or was before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch_crowd import learn

from posttrain.engines.torch import rounded, stems
from posttrain.engines.torch.cache import SlotCache
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.types import Completion, LoRA, Output, Sampling

SHARED = tuple(3 + (7 * i) % 300 for i in range(40))
ASKED = [(*SHARED, *range(10 * i + 5, 10 * i + 8 + 9 * i)) for i in range(4)] + [(5, 6, 7)]
FREE = Sampling(24, temperature=1.0, seed=2)

Bits = list[tuple[tuple[int, ...], tuple[float, ...], float]]


def bits(completions: Sequence[Completion]) -> Bits:
    """All that was drawn, to the last bit: floats are compared as they are."""
    return [(each.tokens, each.logprobs, each.confidence) for each in completions]


async def alone(policy: TorchPolicy, sampling: Sampling) -> list[Bits]:
    """One prompt after the other, one completion each."""
    return [bits((await policy.sample([prompt], sampling=sampling))[0]) for prompt in ASKED]


async def crowded(policies: Sequence[TorchPolicy], sampling: Sampling) -> list[list[Bits]]:
    """All at once, with others before, between and behind; of each the first completion."""
    async def late(i: int) -> None:
        await asyncio.sleep(0.003 * i)
        await policies[i % 2].sample([ASKED[i % 5][: 20 + i], (9 + i, 8)], n=3, sampling=Sampling(9, 1.0, seed=i))

    async def answers(policy: TorchPolicy) -> list[Bits]:
        return [bits(group[:1]) for group in await policy.sample(ASKED, n=4, sampling=sampling)]

    found = await asyncio.gather(*map(answers, policies), *(late(i) for i in range(6)))
    return found[: len(policies)]


def both_ways(engine: TorchEngine, sampling: Sampling = FREE) -> tuple[list[list[Bits]], list[list[Bits]]]:
    """(Alone, crowded), of the base and of a trained adapter."""
    async def all_of_it() -> tuple[list[list[Bits]], list[list[Bits]]]:
        policies = [engine.base(), engine.base().fork("taught", LoRA(rank=4))]
        if engine.precision != "int8":
            await learn(policies[1], "yes no yes", steps=2)
        by_itself = [await alone(policy, sampling) for policy in policies]
        return by_itself, [list(found) for found in await crowded(policies, sampling)]

    engine.network.threads.most = 2
    try:
        return asyncio.run(all_of_it())
    finally:
        engine.close()


@pytest.fixture(autouse=True)
def all_would_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little it saved."""
    monkeypatch.setattr(stems, "WORTH_SHARING", 1)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_completion_is_the_same_to_the_bit(precision: Any, tiny_model_folder: Path) -> None:
    if precision == "bfloat16" and not rounded.is_native():
        pytest.skip("this CPU does not multiply bfloat16")
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision=precision, deterministic=True)
    by_itself, crowd = both_ways(engine)
    assert crowd == by_itself


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_are_computed_together_where_products_are_ours(
        precision: Any, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision=precision, deterministic=True)
    if engine.network.decodes_apart:
        engine.close()
        pytest.skip("products are not ours: no C compiler or AVX-512, an Intel processor, or bfloat16 by oneDNN")
    rows, hidden = [], engine.network.decoder.hidden  # type: ignore[union-attr]

    def noted(tokens: Sequence[int], layout: Any, *more: Any) -> Any:
        rows.append(getattr(layout, "rows", 0))  # of a step of decoding
        return hidden(tokens, layout, *more)

    monkeypatch.setattr(engine.network.decoder, "hidden", noted)
    by_itself, crowd = both_ways(engine)
    assert crowd == by_itself
    assert max(rows) > 4


def test_so_are_constrained_ones(tiny_model_folder: Path) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32", deterministic=True)
    labels = Output(labels=("yes", "no", "yes and no", "neither"))
    by_itself, crowd = both_ways(engine, Sampling(12, temperature=1.0, seed=3, output=labels))
    assert crowd == by_itself


def test_without_it_last_bits_depend_on_the_others(tiny_model_folder: Path) -> None:
    """Else the tests above would say nothing."""
    by_itself, crowd = both_ways(TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32"))
    assert crowd != by_itself
    tokens = [[[one[0] for one in group] for group in own] for own in by_itself]
    assert tokens == [[[one[0] for one in group] for group in own] for own in crowd], "what is drawn is the same"


def test_what_would_be_shared_counts_whole(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32", deterministic=True)
    engine.sampler.slot_tokens, held, reserve = 400, [0], SlotCache.reserve

    def noted(slots: SlotCache, *arguments: Any) -> None:
        reserve(slots, *arguments)
        held.append(slots.slots * slots.capacity)

    monkeypatch.setattr(SlotCache, "reserve", noted)
    try:
        asked = [(*SHARED, 10 + i) for i in range(20)]
        assert len(asyncio.run(engine.base().sample(asked, n=1, sampling=Sampling(6, 1.0)))) == 20
        assert 64 < max(held) <= 400
    finally:
        engine.close()


@pytest.mark.slow
def test_the_embedded_model_too() -> None:
    by_itself, crowd = both_ways(TorchEngine.open(deterministic=True), Sampling(6, temperature=1.0, seed=2))
    assert crowd == by_itself
