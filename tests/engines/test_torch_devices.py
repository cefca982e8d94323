"""What is computed on other devices, at the size that runs on a CPU; on a GPU too, where there is one."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import (
    batch,
    gradients,
    logprobs,
    make,
    moved,
    peft_parameters,
    plain_logprobs,
    relative_error,
    with_peft,
    worst_logprobs,
)

from posttrain import losses
from posttrain.engines.torch import attention, fused
from posttrain.engines.torch.base import choose_device, choose_precision, load
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.flex_attention import FlexAttention
from posttrain.engines.torch.masked_attention import MaskedAttention
from posttrain.types import LoRA, Sampling

SMALL = LoRA(rank=4, alpha=6)
CPU = torch.device("cpu")
ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def opened(model: Any, tokenizer: Any, device: torch.device = CPU) -> TorchEngine:
    model = copy.deepcopy(model).to(device)
    return TorchEngine(model, tokenizer, name="tiny", source="tiny", device=device)


def worst_gradient(engine: TorchEngine, model: Any, folder: Path) -> float:
    """How far the gradients of an adapter are from those that PEFT finds for the separate sequences."""
    policy, data = asyncio.run(moved(engine, SMALL)), batch()
    asyncio.run(policy.save(folder))
    reference = with_peft(model, folder)
    asyncio.run(policy.forward_backward(data, losses.cross_entropy, normaliser=7))
    (losses.cross_entropy(plain_logprobs(reference, data), data)[0] / 7).backward()
    ours = gradients(engine, policy)
    return max(relative_error(ours[name].cpu(), parameter.grad)
               for name, parameter in peft_parameters(reference).items() if parameter.grad is not None)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_with_a_plain_mask_as_on_mps(
        name: str, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "COMPUTED", {"cpu": MaskedAttention})
    model = make(name)
    engine = opened(model, tiny_tokenizer)
    try:
        assert worst_gradient(engine, model, tmp_path) < 1e-4
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_with_flex_attention_as_on_cuda(name: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients, which it has on a GPU only."""
    monkeypatch.setattr(attention, "COMPUTED", {"cpu": FlexAttention})
    model = make(name)
    engine = opened(model, tiny_tokenizer)
    try:
        assert worst_logprobs(engine, model) < 1e-4
    finally:
        engine.close()


@pytest.mark.parametrize("compiled", [True, False])
def test_a_model_in_bfloat16_scores_and_learns(
        compiled: bool, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are loaded on CUDA: rounded throughout, adapters in fp32; norms and gates compiled."""
    monkeypatch.setattr(fused, "COMPILED", ("cpu",) if compiled else ())
    model, data = make("llama").bfloat16(), batch(3)
    engine = opened(model, tiny_tokenizer)
    try:
        assert engine.base().precision == "bfloat16"
        with torch.no_grad():
            wanted = torch.cat(plain_logprobs(model, data))
        found = torch.cat(logprobs(engine.base(), data))
        assert float((found - wanted).abs().mean()) < 0.05, "each is rounded in its own way"
        policy = asyncio.run(moved(engine, SMALL, steps=8))
        asyncio.run(policy.forward_backward(data, losses.cross_entropy))
        assert {tensor.dtype for tensor in gradients(engine, policy).values()} == {torch.float32}
        learnt, taught = torch.cat(logprobs(policy, batch(100))), torch.cat(logprobs(engine.base(), batch(100)))
        assert learnt.mean() > taught.mean() + 0.1
        (completion,) = asyncio.run(policy.sample([data[0].tokens], sampling=Sampling(8)))[0]
        assert completion.completion_tokens
    finally:
        engine.close()


def test_the_fastest_device_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, wanted in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert choose_device().type == wanted
    assert choose_precision(torch.device("cuda")) == "float32", "the model is in bfloat16 by itself"


@pytest.mark.parametrize(("precision", "dtype"), [(None, torch.bfloat16), ("float32", torch.float32)])
def test_on_cuda_models_are_in_bfloat16_unless_fp32_is_asked_for(
        precision: Any, dtype: torch.dtype, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, _: module)  # it stays where it is
    model, _, _ = load(str(tiny_model_folder), torch.device("cuda"), precision)
    assert model.dtype == dtype


@ON_A_GPU
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_gradients_on_a_gpu_are_those_of_peft(name: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model = make(name)
    engine = opened(model, tiny_tokenizer, torch.device("cuda"))
    try:
        assert worst_gradient(engine, model, tmp_path) < 1e-3
    finally:
        engine.close()


@ON_A_GPU
def test_answers_on_a_gpu_are_those_of_the_cpu(tiny_tokenizer: Any) -> None:
    model, prompts = make("llama"), [datum.tokens for datum in batch(3)]
    found = []
    for device in (CPU, torch.device("cuda")):
        engine = opened(model, tiny_tokenizer, device)
        try:
            groups = asyncio.run(engine.base().sample(prompts, n=3, sampling=Sampling(12)))
            found.append([completion.tokens for group in groups for completion in group])
        finally:
            engine.close()
    assert found[0] == found[1]
