"""Prompts that several adapters read: the layers below all of them are computed once, and the numbers are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch_models import EXACT, make, open_engine, relative_error

from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.prefill import Read
from posttrain.types import LoRA

PROMPTS = [tuple(range(5, 45)), (*range(5, 35), *range(60, 70)), tuple(range(100, 120))]
DISTINCT = 40 + 10 + 20  # tokens of a forest of them
ENDS = [1, 3, 2]


@pytest.fixture(params=EXACT)
def engine(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Iterator[TorchEngine]:
    engine = open_engine(make(request.param), tiny_tokenizer)
    yield engine
    engine.close()


def adapters(engine: TorchEngine, *shapes: LoRA) -> list[str]:
    """Each of which changes what is read."""
    names = [engine.base().fork("reads", shape, seed=i).adapter for i, shape in enumerate(shapes)]
    for i, name in enumerate(names):
        for _, b in engine.network.bank.get(name).tensors.values():
            b.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(i))
    return names


def read(engine: TorchEngine, names: Sequence[str]) -> Read:
    """All prompts by each adapter, in one call."""
    count = len(PROMPTS)
    by_adapter = [name for name in names for _ in range(count)]

    @torch.inference_mode()
    def work() -> Read:
        return engine.network.prefill(PROMPTS * len(names), by_adapter, None, ENDS * len(names))

    return engine.thread.submit(work).result()


def parts(found: Read, which: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What one of several adapters read: hidden states; keys and values of all layers and prompts."""
    hidden, layers = found
    start, total, count = which * sum(ENDS), sum(ENDS), len(PROMPTS)
    kept = [tensor for layer in layers for pair in layer[which * count : (which + 1) * count] for tensor in pair]
    return hidden[start : start + total], kept


def below(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(Layers, tokens) of each call that computes lower layers for several adapters."""
    found: list[tuple[int, int]] = []
    plain = engine.network.below

    def noted(depth: int, forest: Any) -> Any:
        found.append((depth, len(forest.tokens)))
        return plain(depth, forest)

    monkeypatch.setattr(engine.network, "below", noted)
    return found


@pytest.mark.parametrize("way", ["natively", "by torch"])
def test_several_adapters_read_as_each_alone(
        engine: TorchEngine, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "by torch":
        engine.network.decoder = None
    names = adapters(engine, LoRA(rank=4, layers=0.5), LoRA(rank=2, alpha=9, layers=0.5))
    alone = [parts(read(engine, [name]), 0) for name in names]
    assert relative_error(alone[0][0], alone[1][0]) > 1e-2, "each reads otherwise"
    calls = below(engine, monkeypatch)
    together = read(engine, names)
    depth = engine.thread.submit(partial(engine.network.depth, names)).result()
    assert calls == ([(1, DISTINCT)] if depth else [])
    assert len(together[1]) == engine.network.config.num_hidden_layers
    for i, (hidden, kept) in enumerate(alone):
        found, found_kept = parts(together, i)
        assert relative_error(found, hidden) < 1e-5
        for mine, theirs in zip(found_kept, kept, strict=True):
            assert mine.shape == theirs.shape and relative_error(mine, theirs) < 1e-5


def llama(tiny_tokenizer: Any) -> TorchEngine:
    return open_engine(make("llama"), tiny_tokenizer)


def test_only_where_several_adapters_begin_above(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = llama(tiny_tokenizer)
    try:
        upper, other, whole = adapters(engine, LoRA(4, layers=0.5), LoRA(4, layers=0.5), LoRA(4))
        calls = below(engine, monkeypatch)
        for names in ([upper], [upper, whole], [upper, ""], [whole, ""]):
            read(engine, names)
        assert not calls
        read(engine, [upper, other])
        assert calls == [(1, DISTINCT)]
    finally:
        engine.close()


def test_one_that_has_diverged_spoils_no_other(tiny_tokenizer: Any) -> None:
    engine = llama(tiny_tokenizer)
    try:
        good, wild = adapters(engine, LoRA(4, layers=0.5), LoRA(4, layers=0.5))
        for a, _ in engine.network.bank.get(wild).tensors.values():
            a.data.fill_(float("nan"))
        hidden, _ = parts(read(engine, [good]), 0)
        found = read(engine, [good, wild])
        assert relative_error(parts(found, 0)[0], hidden) < 1e-5
        assert not parts(found, 1)[0].isfinite().any()
    finally:
        engine.close()
