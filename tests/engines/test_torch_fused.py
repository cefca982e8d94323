"""What is compiled on a GPU gives what the plain operations give, compiled here for the CPU."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_models import make
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from posttrain.engines.torch import fused, native, norms
from posttrain.engines.torch.gate import gated
from posttrain.engines.torch.norms import Norm, replace_norms, root_mean_square_norm

TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(fused, "COMPILED", ("cpu",))
    monkeypatch.setattr(fused, "_failed", set())
    monkeypatch.setattr(native, "suits", lambda _: False)


def gate(x: Tensor) -> tuple[Tensor, ...]:
    return (gated(x, nn.SiLU()),)


def norm(x: Tensor) -> tuple[Tensor, ...]:
    return (root_mean_square_norm(x, torch.linspace(0.5, 2, x.shape[1]), 1e-5),)


def results(function: Callable[[Tensor], tuple[Tensor, ...]], dtype: torch.dtype) -> list[Tensor]:
    """Of a call that is learnt from, the gradient with it, and of one that is not; of several numbers of tokens."""
    found: list[Tensor] = []
    for rows in (3, 17, 40):
        x = torch.randn(rows, 16, generator=torch.Generator().manual_seed(rows)).to(dtype)
        with torch.no_grad():
            found += function(x)
        outs = function(x.requires_grad_())
        found += [*outs, *torch.autograd.grad(sum((out.float() ** 2).sum() for out in outs), x)]  # type: ignore[arg-type]
    return found


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("function", [gate, norm])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_compiled_is_the_same(
        function: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    found = results(function, dtype)
    counters = torch._dynamo.utils.counters
    assert counters["frames"]["ok"] >= 1 and not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 6, "a few for any number of tokens"
    monkeypatch.setattr(fused, "COMPILED", ())
    for mine, wanted in zip(found, results(function, dtype), strict=True):
        assert mine.dtype == wanted.dtype == dtype
        torch.testing.assert_close(mine.float(), wanted.float(), rtol=2e-2 if dtype == torch.bfloat16 else 1e-5,
                                   atol=5e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_norms_in_half_precision_are_replaced_where_they_are_compiled(name: str) -> None:
    model = make(name).bfloat16().requires_grad_(False)
    plain = copy.deepcopy(model)
    assert replace_norms(model) > 0
    states = [each.get_input_embeddings()(torch.arange(3, 9)[None]) for each in (model, plain)]
    for (_, mine), (_, theirs) in zip(model.named_modules(), plain.named_modules(), strict=True):
        if isinstance(getattr(mine, "forward", None), Norm) and mine.weight.shape[0] == states[0].shape[-1]:
            torch.testing.assert_close(mine(states[0]), theirs(states[1]), rtol=1e-2, atol=1e-2)


def test_elsewhere_norms_in_half_precision_are_left_alone() -> None:
    assert not replace_norms(nn.Sequential(LlamaRMSNorm(8)).bfloat16().requires_grad_(False))


@pytest.mark.usefixtures("as_on_a_gpu")
def test_what_cannot_be_compiled_is_computed_as_it_is(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And is told of once.  Norms in half precision are the model's own then."""
    tried: list[Any] = []

    def no_compiler(*given: Any) -> None:
        tried.append(given)
        raise OSError("there is no compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **_: torch._dynamo.optimize(no_compiler)(function))
    calls: list[int] = []

    @fused.fused
    def doubled(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x * 2

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(doubled(torch.ones(3)), torch.full((3,), 2.0))
        assert not replace_norms(nn.Sequential(LlamaRMSNorm(8)).bfloat16().requires_grad_(False))
    assert calls == [3, 3] and len(tried) == 1
    assert [record.getMessage().count("torch.compile failed on") for record in caplog.records] == [1]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_norm_that_finds_no_compiler_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> None:
        raise OSError("there is no compiler")

    monkeypatch.setattr(norms, "_by_torch", fused.fused(norms._by_torch.__wrapped__))
    monkeypatch.setattr(torch, "compile", no_compiler)
    assert not replace_norms(nn.Sequential(LlamaRMSNorm(8)).bfloat16().requires_grad_(False))
