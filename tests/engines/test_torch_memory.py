"""How many tokens fit into memory: what is foretold is what is really kept."""

from __future__ import annotations

import asyncio
import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch_crowd import data
from torch_models import make, open_engine

from posttrain import losses
from posttrain.engines.torch import cache, heap, memory
from posttrain.engines.torch.adapters import Adapter
from posttrain.engines.torch.cache import SlotCache
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.forest import plant
from posttrain.types import LoRA


def left_allocated(engine: TorchEngine, adapter: Adapter, tokens: int) -> int:
    """Bytes that torch has allocated, and not freed again, when a forward call has ended that is to be learnt from."""
    forest = plant([[3 + i % 300 for i in range(tokens)]], [adapter.name])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        hidden, layout = engine.network.forest(forest)
    assert hidden.requires_grad and layout
    return sum(event.self_cpu_memory_usage for event in seen.key_averages())


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox", "qwen3_moe"])
def test_what_a_token_keeps_is_what_a_forward_call_leaves_allocated(architecture: str, tiny_tokenizer: Any) -> None:
    engine = open_engine(make(architecture), tiny_tokenizer)
    try:
        network = engine.network
        adapter = engine.thread.submit(lambda: network.bank.create("learns", LoRA(), seed=0)).result()
        work = [(adapter, 40), (adapter, 40), (adapter, 140)]  # the first call allocates what is kept from call to call
        _, fewer, more = [engine.thread.submit(lambda each=each: left_allocated(engine, *each)).result() for each in work]
        kept = engine.thread.submit(lambda: memory.kept_bytes(network)).result()
        assert kept == pytest.approx((more - fewer) / 100, rel=0.1)
        assert [*network.bank.adapters] == ["learns"]
    finally:
        engine.close()


def test_measuring_what_a_token_keeps_leaves_nothing_behind(tiny_tokenizer: Any) -> None:
    """A graph that holds tensors of its own in Python is never let go of, nor found by a garbage collection."""
    engine = open_engine(make("llama"), tiny_tokenizer)

    def measured() -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            memory.kept_bytes(engine.network)
        return sum(event.self_cpu_memory_usage for event in seen.key_averages())

    try:
        kept = engine.thread.submit(lambda: memory.kept_bytes(engine.network)).result()
        assert engine.thread.submit(measured).result() < kept * memory.PROBED
    finally:
        engine.close()


def test_large_slots_are_taken_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they go back when they are outgrown; the first ones keep what they hold, and what is new is zero."""
    taken: list[int] = []
    huge_pages = heap.huge_pages
    monkeypatch.setattr(heap, "huge_pages", lambda count: taken.append(count) or huge_pages(count))
    slots, heads, size = SlotCache(), 3, 64
    slots.reserve(2, 64, [(torch.zeros(1, heads, 1, size), torch.zeros(1, heads, 1, size))] * 2)
    slots.write(1, 0, torch.ones(heads, 5, size), torch.ones(heads, 5, size))
    (before, _), *_ = slots.layers
    assert before.nbytes < cache.LARGE and not taken
    slots.reserve(64, 64)
    (keys, values), *_ = slots.layers
    assert taken == [keys.nbytes] * 4 and keys.shape == (64, heads, 64, size)
    assert keys[1, :, :5].eq(1).all() and values.sum() == keys.sum() == heads * 5 * size


def test_a_loaded_model_is_not_searched_for_garbage(tiny_model_folder: Path) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    try:
        assert gc.get_freeze_count() > 100_000
    finally:
        engine.close()
    assert not gc.get_freeze_count()


def test_a_micro_batch_has_as_many_tokens_as_fit_into_free_memory(
        tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(make("llama"), tiny_tokenizer)
    try:
        def fitting(free: float) -> int:
            monkeypatch.setattr(memory, "free_bytes", lambda _: int(free))
            return engine.thread.submit(lambda: memory.trained_tokens(engine.network)).result()

        kept = engine.thread.submit(lambda: memory.kept_bytes(engine.network)).result()
        needed = kept / memory.ACTIVATIONS_SHARE  # free bytes for a token
        assert fitting(0) == fitting(500 * needed) == 512
        assert fitting(4100 * needed) == fitting(6000 * needed) == 4096, "a little less memory cuts no other pieces"
        assert fitting(1e9 * needed) == 16_384
        assert "micro_batch_tokens" not in vars(engine.trainer), "nothing is measured before something is to be learnt"
        policy = engine.base().fork("learns")
        asyncio.run(policy.forward_backward(data(engine), losses.cross_entropy))
        assert engine.trainer.micro_batch_tokens == 16_384 and torch.is_grad_enabled()
    finally:
        engine.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_the_file_of_the_weights_does_not_stay_in_memory(tiny_model_folder: Path, tmp_path: Path) -> None:
    """It is as large as the model, and mapped as long as a single norm of it is."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "own")  # which no other test has opened
    engine = TorchEngine.open(str(folder), device="cpu", precision="float32")
    try:
        assert str(folder) not in Path("/proc/self/maps").read_text()
    finally:
        engine.close()
