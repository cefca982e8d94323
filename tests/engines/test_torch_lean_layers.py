"""Layers that keep less, the last for wanted tokens alone: what they give, and what is learnt, is what the model's own give."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch_models import EXACT, batch, gradients, logprobs, make, moved, open_engine, relative_error

from posttrain import losses
from posttrain.engines.torch import memory
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.forest import plant
from posttrain.engines.torch.lean_layers import LeanLayer
from posttrain.engines.torch.network import Network
from posttrain.types import LoRA

SHORTENED = {"llama", "llama_biased", "qwen2", "qwen3", "mistral"}


def last_of(network: Network) -> LeanLayer | None:
    """What computes the last layer of a network, behind the gate of lower_layers.py."""
    forward = getattr(network.lower.layers[-1].forward, "__closure__", None) or ()
    return next((cell.cell_contents for cell in forward if isinstance(cell.cell_contents, LeanLayer)), None)


@pytest.mark.parametrize("name", EXACT)
def test_which_models_have_them(name: str, tiny_tokenizer: Any) -> None:
    engine = open_engine(make(name), tiny_tokenizer)
    assert (last_of(engine.network) is not None) == (name in SHORTENED)
    engine.close()


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", ["llama_biased", "qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize("layers", [1.0, 0.5])
def test_wanted_states_are_those_of_all(name: str, layers: float, tiny_tokenizer: Any) -> None:
    """Of several adapters side by side, of any of their tokens."""
    engine = open_engine(make(name), tiny_tokenizer)
    names = ["", *(asyncio.run(moved(engine, LoRA(rank=4, layers=layers), seed=i)).name for i in range(3))]
    forest = plant([datum.tokens for datum in batch()[:4]], names)
    with torch.inference_mode():
        whole, _ = engine.network.forest(forest)
        for wanted in ([0], [2, 3, 9], [*range(len(whole))], [len(whole) - 1]):
            found, _ = engine.network.forest(forest, wanted=wanted)
            torch.testing.assert_close(found, whole[wanted], rtol=1e-5, atol=1e-5)
    assert [adapter.name for adapter, _, _ in engine.network.bank.acting] == names[1:]
    engine.close()


@pytest.mark.usefixtures("either_way")
def test_fewer_tokens_go_through_it_and_the_same_is_learnt(
        tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make("llama"), tiny_tokenizer)
    policy = asyncio.run(moved(engine, LoRA(rank=4)))
    last = last_of(engine.network)
    assert last is not None
    rows: list[int] = []
    wide = last.layer.wide

    def numbers() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        asyncio.run(policy.forward_backward(batch(), losses.cross_entropy, normaliser=10))
        found = gradients(engine, policy)
        for parameter in engine.network.bank.get(policy.adapter).parameters():
            parameter.grad = None
        return logprobs(policy, batch()), found

    monkeypatch.setattr(type(wide), "__call__", _counting(type(wide).__call__, wide, rows))
    found = numbers()
    fewer, again = rows
    kept = kept_of(engine)
    rows.clear()
    monkeypatch.setattr(LeanLayer, "__call__", lambda self, *given, **named: self.plain(*given, **named))
    wanted = numbers()
    all_of_them, last = rows
    assert fewer == again < all_of_them == last
    assert kept < kept_of(engine), "and less is kept of a token"
    assert all(relative_error(*pair) < 1e-5 for pair in zip(found[0], wanted[0], strict=True))
    assert all(relative_error(found[1][name], value) < 1e-4 for name, value in wanted[1].items())
    engine.close()


def kept_of(engine: TorchEngine) -> int:
    return engine.thread.submit(lambda: memory.kept_bytes(engine.network)).result()


def _counting(plain: Any, counted: Any, rows: list[int]) -> Any:
    """The call of a wide layer, that notes how many tokens go through one of them."""
    def call(wide: Any, x: torch.Tensor, *more: Any) -> torch.Tensor:
        if wide is counted:
            rows.append(x.shape[1])
        return plain(wide, x, *more)

    return call


@pytest.mark.parametrize("number", [0, -1])
def test_a_model_that_does_a_little_more_in_a_layer_is_found_out(number: int, tiny_tokenizer: Any) -> None:
    model = make("llama")
    layer = model.model.layers[number]
    plain = type(layer).forward

    def scaled(self: Any, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        return hidden_states + 1.0003 * (plain(self, hidden_states, **more) - hidden_states)

    layer.forward = scaled.__get__(layer)
    engine = open_engine(model, tiny_tokenizer)
    assert last_of(engine.network) is None
    assert len(logprobs(engine.base(), batch())) == len(batch())
    engine.close()
