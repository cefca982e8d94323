"""Layers below an adapter are computed once per sequence, and the numbers are the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import (
    EXACT,
    batch,
    gradients,
    logprobs,
    make,
    open_engine,
    peft_parameters,
    plain_logprobs,
    relative_error,
    with_peft,
)

from posttrain import losses
from posttrain.engines.torch import lower_layers
from posttrain.engines.torch.attention import ForestLayout
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import LoRA, UserError

UPPER = LoRA(rank=4, alpha=6, layers=0.5)


@pytest.fixture(params=EXACT)
def pair(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Iterator[tuple[Any, TorchEngine]]:
    """A model of transformers and an engine on a copy of it."""
    model = make(request.param)
    engine = open_engine(model, tiny_tokenizer)
    yield model, engine
    engine.close()


@pytest.fixture
def engine(tiny_tokenizer: Any) -> Iterator[TorchEngine]:
    engine = open_engine(make("llama"), tiny_tokenizer)
    yield engine
    engine.close()


def trained(engine: TorchEngine, name: str = "upper") -> TorchPolicy:
    policy = engine.base().fork(name, UPPER, seed=3)

    async def steps() -> None:
        for _ in range(2):
            await policy.forward_backward(batch(), losses.cross_entropy, normaliser=7)
            await policy.optim_step(Adam(1e-2))

    asyncio.run(steps())
    return policy


def forwards(monkeypatch: pytest.MonkeyPatch, layer: int) -> list[int]:
    """Counts the tokens that a layer's attention sees from now on."""
    seen: list[int] = []
    attend = ForestLayout.attend

    def noted(layout: ForestLayout, number: int, q: Any, *more: Any) -> Any:
        if number == layer:
            seen.append(q.shape[2])
        return attend(layout, number, q, *more)

    monkeypatch.setattr(ForestLayout, "attend", noted)
    return seen


def test_loss_and_gradients_are_those_of_peft_with_layers_to_transform(
        pair: tuple[Any, TorchEngine], tmp_path: Path) -> None:
    model, engine = pair
    policy = trained(engine)
    asyncio.run(policy.save(tmp_path))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["layers_to_transform"] == [1]
    reference, data = with_peft(model, tmp_path), batch()
    for _ in range(2):  # the second time from what was kept
        metrics = asyncio.run(policy.forward_backward(data, losses.cross_entropy, normaliser=7))
    loss, _ = losses.cross_entropy(plain_logprobs(reference, data), data)
    (2 * loss / 7).backward()
    assert metrics["loss"] == pytest.approx(loss.item() / 7, rel=1e-4)
    ours, theirs = gradients(engine, policy), peft_parameters(reference)
    assert ours.keys() == theirs.keys() and ours
    for name, parameter in theirs.items():
        assert parameter.grad is not None
        assert relative_error(ours[name], parameter.grad) < 1e-4, name


def test_lower_layers_are_computed_once_per_sequence(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, data = engine.base().fork("once", UPPER), batch(3)
    below = forwards(monkeypatch, 0)
    first = logprobs(policy, data)
    assert below, "the first time, also to try whether the model can be entered"
    below.clear()
    again = logprobs(policy, data)
    assert below == [] and all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    logprobs(policy, batch(4))
    assert len(below) == len(batch(4)), "only what is new, each alone"
    base = logprobs(engine.base(), data)
    assert len(below) == len(batch(4)) + 1 and all(relative_error(*pair) < 1e-5 for pair in zip(first, base, strict=True))


def test_what_is_kept_does_not_depend_on_the_batch_to_the_bit(engine: TorchEngine) -> None:
    """A training that was killed begins again with another batch, and must go on with the same numbers."""
    data = batch(3)
    lower = engine.network.lower
    together, apart = (engine.base().fork(name, UPPER) for name in ("together", "apart"))
    logprobs(together, data)
    first = dict(lower.kept)
    lower.forget(together.adapter)
    assert not lower.kept
    for datum in reversed(data):
        logprobs(apart, [datum])
    kept = lower.kept
    for datum in data:
        assert torch.equal(first[1, datum.tokens[:-1]], kept[1, datum.tokens[:-1]])


def test_scored_first_and_trained_later(engine: TorchEngine) -> None:
    """What is kept while scoring, without gradients, must be usable in training."""
    policy, data = engine.base().fork("later", UPPER), batch(3)
    logprobs(policy, data)
    asyncio.run(policy.forward_backward(data, losses.cross_entropy))
    assert asyncio.run(policy.optim_step(Adam(1e-3)))["gradient_norm"] > 0


def test_what_is_kept_is_bounded_and_goes_with_its_adapter(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, data = trained(engine), batch()
    lower = engine.network.lower
    wanted = logprobs(policy, data)
    assert lower.kept and lower.bytes == sum(states.nbytes for states in lower.kept.values())
    monkeypatch.setattr(lower_layers, "MOST_BYTES", lower.bytes // 3)
    policy_too = engine.base().fork("too", UPPER)
    logprobs(policy_too, batch(1))
    assert 0 < lower.bytes <= lower_layers.MOST_BYTES
    assert all(relative_error(*pair) < 1e-5 for pair in zip(logprobs(policy, data), wanted, strict=True))
    policy.drop()
    policy_too.drop()
    assert not lower.kept and lower.bytes == 0


def test_saved_and_loaded_it_is_the_same_and_still_upper(engine: TorchEngine, tmp_path: Path) -> None:
    policy, data = trained(engine), batch()
    asyncio.run(policy.save(tmp_path))
    loaded = engine.load(tmp_path, "loaded")
    assert all(torch.equal(*pair) for pair in zip(logprobs(policy, data), logprobs(loaded, data), strict=True))
    asyncio.run(loaded.save(tmp_path / "again"))
    configs = [json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path, tmp_path / "again")]
    assert configs[0] == configs[1]


def test_a_model_that_cannot_be_entered_is_computed_from_the_bottom(tiny_tokenizer: Any) -> None:
    model, passed = make("llama"), []
    lower, upper = model.model.layers
    model.model.register_forward_pre_hook(lambda *_: passed.clear())
    lower.mlp.register_forward_hook(lambda _, __, out: passed.append(out))
    upper.mlp.register_forward_hook(lambda _, __, out: out + passed.pop() if passed else out)  # past the layer's input
    engine = open_engine(model, tiny_tokenizer)
    try:
        policy, data = engine.base().fork("all of it", UPPER), batch(3)
        first = logprobs(policy, data)
        assert engine.network.lower.works == {1: False} and not engine.network.lower.kept
        assert all(relative_error(*pair) < 1e-5 for pair in zip(first, logprobs(engine.base(), data), strict=True))
    finally:
        engine.close()


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_layers_that_is_none_is_refused(engine: TorchEngine, share: float) -> None:
    with pytest.raises(UserError, match="layers"):
        engine.base().fork("none", LoRA(layers=share))
