"""Several adapters in one batched product: what each adds is what it adds alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_crowd import learn, run, texts

from posttrain.engines.torch import drafts, grouped
from posttrain.engines.torch.adapted_product import Delta, Pair, PlainProduct, adapted_product
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.engines.torch.grouped import FEWEST, MOST_ROWS, Groups
from posttrain.types import LoRA, Sampling

IN, OUT = 24, 40


COLUMNS = {"first": slice(0, 25), "unknown": slice(25, 30), "last": slice(30, OUT)}


@dataclass
class Member:
    tensors: dict[str, tuple[Tensor, Tensor]]
    stamp: int
    scale: float


def member(rank: int, stamp: int) -> Member:
    """Of a layer with 40 outputs it knows the first 25 and the last 10, with another rank for each."""
    generator = torch.Generator().manual_seed(stamp)
    pairs = {path: (torch.randn(rank, IN, generator=generator), torch.randn(width, rank, generator=generator))
             for path, rank, width in (("first", rank, 25), ("last", 1 + rank // 2, 10))}
    return Member(pairs, stamp, scale=0.5 + stamp)


@torch.inference_mode()
def both_ways(acting: list[tuple[Member, int, int]], rows: int) -> tuple[Tensor, Tensor]:
    """(Grouped, one by one) outputs."""
    x, linear = torch.randn(rows, IN, generator=torch.Generator().manual_seed(1)), torch.nn.Linear(IN, OUT)
    groups = Groups()
    assert groups.find(acting) is None, "a single call is not worth it"
    group = groups.find(acting)
    assert group
    y = linear(x)
    group.add(COLUMNS, x, y)
    group.add({"another": slice(None)}, x, y)
    deltas = [Delta(start, end, [Pair(*pair, COLUMNS[path]) for path, pair in one.tensors.items()], one.scale)
              for one, start, end in acting]
    return y, adapted_product(x, PlainProduct(linear), deltas)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, MOST_ROWS), st.integers(0, 3)), min_size=FEWEST, max_size=9))
def test_a_group_adds_what_its_members_add(shapes: list[tuple[int, int, int]]) -> None:
    """Of any ranks, on any rows, with rows of the bare base between."""
    acting, end = [], 0
    for stamp, (rank, count, bare) in enumerate(shapes):
        start = end + bare
        end = start + count
        acting.append((member(rank, stamp), start, end))
    found, wanted = both_ways(acting, end + 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_one_that_has_diverged_spoils_no_other() -> None:
    acting = [(member(3, stamp), 2 * stamp, 2 * stamp + 2) for stamp in range(5)]
    for tensor in acting[2][0].tensors["first"]:
        tensor.fill_(float("nan"))
    found, _ = both_ways(acting, 10)
    assert found.isnan().any(dim=1).tolist() == [False] * 4 + [True] * 2 + [False] * 4


@torch.inference_mode()
def test_where_it_is_not_worth_it_there_is_no_group() -> None:
    groups = Groups()
    few = [(member(2, stamp), stamp, stamp + 1) for stamp in range(FEWEST)]
    wide = [*few[:-1], (few[-1][0], FEWEST - 1, FEWEST + MOST_ROWS)]
    for acting in (few[1:], wide):
        assert groups.find(acting) is None and groups.find(acting) is None
    assert groups.find(few) is None and groups.find(few)
    few[0][0].stamp = 99
    assert groups.find(few) is None, "its weights are others now"
    with torch.inference_mode(False), torch.enable_grad():
        assert groups.find(few) is None, "it is to be learnt"


@torch.inference_mode()
def test_the_oldest_stacks_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouped, "MOST_STACKED", 2 * FEWEST)
    groups = Groups()
    sets = [[(member(2, FEWEST * i + j), j, j + 1) for j in range(FEWEST)] for i in range(3)]
    for acting in (*sets, sets[1]):
        groups.find(acting)
        groups.find(acting)
    assert [key[0] for key in groups.kept] == [2 * FEWEST, FEWEST]
    groups.clear()
    assert not groups.kept


@pytest.fixture
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_adapters_that_write_together_write_as_alone(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, layer_by_layer: bool) -> None:
    engine.network.threads.most = 1
    if layer_by_layer:
        monkeypatch.setattr(engine.network, "decoder", None)
    monkeypatch.setattr(drafts, "LONGEST_DRAFT", 0)  # what was written before would be guessed, in many rows
    used: list[Any] = []
    add = grouped.Group.add
    monkeypatch.setattr(grouped.Group, "add", lambda group, *given: used.append(given) or add(group, *given))

    async def all_of_it() -> None:
        sampling, policies = Sampling(20, temperature=1.0, seed=4), []
        for i in range(6):
            policies.append(engine.base().fork(f"tenant {i}", LoRA(rank=3 + i)))
            await learn(policies[-1], ("yes", "no", "no no")[i % 3])

        async def together(some: list[TorchPolicy]) -> list[Any]:
            return await asyncio.gather(*(texts(policy, sampling) for policy in some))

        for _ in range(2):
            alone = [await texts(policy, sampling) for policy in policies]
            used.clear()
            assert await together(policies) == alone
            assert bool(used) == (engine.network.decoder is None)
            before = await texts(policies[3], sampling)
            await learn(policies[3], "no no", 3)  # its weights change: what was laid out for it is no more
            assert await texts(policies[3], sampling) != before

    run(all_of_it())
