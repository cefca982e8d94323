"""Adapter folders: what is no adapter, or none that can be reproduced, is refused and changes nothing."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch_models import SHAPE, batch, logprobs, make, moved, open_engine
from transformers import AutoModelForCausalLM, LlamaConfig

from posttrain import losses
from posttrain.engines.torch.engine import TorchEngine
from posttrain.optimisers import Adam
from posttrain.types import LoRA, Sampling, UserError

SMALL = LoRA(rank=4, alpha=6)


@pytest.fixture
def engine(tiny_tokenizer: Any) -> Iterator[TorchEngine]:
    engine = open_engine(make("llama"), tiny_tokenizer)
    yield engine
    engine.close()


def change(folder: Path, **entries: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def add_tensor(folder: Path, name: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), name: torch.ones(4)}, path)


def rename_layers(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace("q_proj", "qq_proj"): tensor for name, tensor in load_file(path).items()}, path)


def widen(folder: Path, which: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: torch.cat([tensor, tensor], dim=1) if which in name else tensor
               for name, tensor in load_file(path).items()}, path)


BAD: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "adapter_config.json").unlink(),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "config is no JSON": lambda folder: (folder / "adapter_config.json").write_text("{"),
    "config is a list": lambda folder: (folder / "adapter_config.json").write_text("[]"),
    "weights cut short": lambda folder: truncate(folder / "adapter_model.safetensors"),
    "weights are no tensors": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"hello" * 9),
    "no rank": lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
    "not LoRA": lambda folder: change(folder, peft_type="IA3"),
    "DoRA": lambda folder: change(folder, use_dora=True),
    "rank-stabilised": lambda folder: change(folder, use_rslora=True),
    "ranks by layer": lambda folder: change(folder, rank_pattern={"q_proj": 2}),
    "rank of another": lambda folder: change(folder, r=8),
    "other layers": rename_layers,
    "a bias": lambda folder: add_tensor(folder, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"),
    "a bias of the base": lambda folder: add_tensor(folder, "base_model.model.model.layers.0.self_attn.q_proj.bias"),
    "a whole layer": lambda folder: add_tensor(folder, "base_model.model.model.norm.weight"),
    "a tensor of no layer": lambda folder: add_tensor(folder, "prompt_embeddings"),
    "acts from a token on": lambda folder: change(folder, alora_invocation_tokens=[5, 6]),
    "a base that was changed": lambda folder: change(folder, init_lora_weights="pissa"),
    "what is not known yet": lambda folder: change(folder, use_something_new=True),
    "another chat template": lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
    "B of another rank": lambda folder: widen(folder, "lora_B"),
}


# Once silent: a rank other than the tensors' gives another scale, a bias was dropped; the answers differed from PEFT's.
@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_reproduced_is_refused(engine: TorchEngine, what: str, tmp_path: Path) -> None:
    policy = asyncio.run(moved(engine, SMALL))
    asyncio.run(policy.save(tmp_path))
    before, names = logprobs(policy, batch()), set(engine.network.bank.adapters)
    BAD[what](tmp_path)
    with pytest.raises(UserError) as caught:
        engine.load(tmp_path)
    assert str(tmp_path) in caught.value.place and caught.value.remedy
    with pytest.raises(UserError):
        asyncio.run(policy.load(tmp_path))
    assert set(engine.network.bank.adapters) == names
    for was, now in zip(before, logprobs(policy, batch()), strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_that_peft_trained_are_refused_even_when_the_configuration_is_silent(
        tiny_tokenizer: Any, bias: Any, tmp_path: Path) -> None:
    model = make("gpt_neox")  # its linear layers have biases
    config = LoraConfig(r=2, target_modules=["query_key_value"], bias=bias, task_type="CAUSAL_LM")
    get_peft_model(copy.deepcopy(model), config).save_pretrained(str(tmp_path))
    engine = open_engine(model, tiny_tokenizer)
    try:
        with pytest.raises(UserError, match="bias"):
            engine.load(tmp_path)
        change(tmp_path, bias="none")
        with pytest.raises(UserError, match="bias"):
            engine.load(tmp_path)
        assert not engine.network.bank.adapters
    finally:
        engine.close()


def change_moments(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


BROKEN: dict[str, Callable[[Path], object]] = {
    "cut short": truncate,
    "no version": lambda path: change_moments(path, lambda tensors: tensors.pop("version")),
    "a moment is missing": lambda path: change_moments(path, lambda tensors: tensors.pop("3.exp_avg_sq")),
    "of another shape": lambda path: change_moments(path, lambda tensors: tensors.update({"3.exp_avg": torch.ones(2)})),
    "of more layers": lambda path: change_moments(path, lambda tensors: tensors.update({"999.step": torch.ones(())})),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_checkpoint_whose_optimiser_is_broken_changes_nothing(
        engine: TorchEngine, how: str, tmp_path: Path) -> None:
    policy = asyncio.run(moved(engine, SMALL))
    asyncio.run(policy.save(tmp_path, optimiser=True))
    asyncio.run(policy.forward_backward(batch(1), losses.cross_entropy, normaliser=10))
    asyncio.run(policy.optim_step(Adam(1e-2)))
    before, version, adapters = logprobs(policy, batch()), policy.version, dict(engine.network.bank.adapters)
    BROKEN[how](tmp_path / "optimiser.safetensors")
    with pytest.raises(UserError, match="broken checkpoint"):
        asyncio.run(policy.load(tmp_path))
    assert policy.version == version and engine.network.bank.adapters == adapters
    for was, now in zip(before, logprobs(policy, batch()), strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("padding", range(0, 64, 8))
def test_what_is_loaded_lies_in_memory_as_what_was_made(engine: TorchEngine, tmp_path: Path, padding: int) -> None:
    """MKL's last bits go by where numbers lie (of 120 small products on an AMD 8): a training that goes on from a file
    would come to other bytes than one that was never stopped, whenever the header of the file is of another length."""
    policy = asyncio.run(moved(engine, SMALL))
    asyncio.run(policy.save(tmp_path, optimiser=True))
    for name in ("adapter_model.safetensors", "optimiser.safetensors"):
        save_file(load_file(tmp_path / name), tmp_path / name, metadata={"padding": "x" * padding})
    asyncio.run(policy.load(tmp_path))
    adapter = engine.network.bank.get(policy.name)
    assert adapter.optimiser is not None
    moments = [value for state in adapter.optimiser.state.values() for value in state.values() if value.ndim]
    assert moments and all(tensor.data_ptr() % 64 == 0 for tensor in (*adapter.parameters(), *moments))


def test_an_adapter_in_the_current_folder_is_not_taken_for_the_base(
        engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = asyncio.run(moved(engine, SMALL))
    asyncio.run(policy.save(tmp_path))
    monkeypatch.chdir(tmp_path)
    loaded = engine.load(Path())
    assert loaded.name == tmp_path.name and engine.base().fork("").adapter, "no name is that of the base"
    assert all(map(torch.equal, logprobs(loaded, batch()), logprobs(policy, batch())))


def test_what_cannot_be_loaded_or_stepped_is_a_user_error(engine: TorchEngine, tmp_path: Path) -> None:
    policy = asyncio.run(moved(engine, SMALL))
    asyncio.run(policy.save(tmp_path))
    for still in (engine.base(), policy.frozen()):
        for verb in (still.load(tmp_path), still.optim_step(Adam(1e-2))):
            with pytest.raises(UserError, match="frozen"):
                asyncio.run(verb)


def test_an_adapter_of_another_base_is_refused(engine: TorchEngine, tmp_path: Path) -> None:
    other = AutoModelForCausalLM.from_config(LlamaConfig(**{**SHAPE, "hidden_size": 32}))
    get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not fit the base model"):
        engine.load(tmp_path)


def test_layers_that_there_are_not_are_refused_with_those_that_there_are(engine: TorchEngine) -> None:
    with pytest.raises(UserError, match="query") as caught:
        engine.base().fork("wrong", LoRA(targets=("query",)))
    assert "q_proj" in caught.value.remedy
    with pytest.raises(UserError, match="vproj"):  # not trained without it, and no word
        engine.base().fork("wrong", LoRA(targets=("q_proj", "vproj")))
    with pytest.raises(UserError, match="no adapter to save"):
        asyncio.run(engine.base().save(Path("nowhere")))


@pytest.mark.parametrize("lora", [LoRA(rank=0), LoRA(rank=-2), LoRA(alpha=0.0), LoRA(alpha=float("nan")), LoRA(layers=0.0)])
def test_shapes_that_change_nothing_are_refused(engine: TorchEngine, lora: LoRA) -> None:
    with pytest.raises(UserError, match="an adapter o"):
        engine.base().fork("wrong", lora)


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import LoRA, UserError
policy = TorchEngine.open(sys.argv[1], device="cpu", precision="float32").base().fork("full", LoRA(rank=4))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    asyncio.run(policy.save(Path(sys.argv[2])))
except UserError as error:
    print("refused", error.place, error.remedy)
"""


def test_a_full_disk_is_a_user_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    # Once runs.py disk_errors / adapters.py: safetensors raises SafetensorError, not OSError, when it cannot write.
    done = subprocess.run([sys.executable, "-c", FULL, str(tiny_model_folder), str(tmp_path / "adapter")],
                          capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith(f"refused {tmp_path / 'adapter'}") and "free some space" in done.stdout


def test_a_file_where_the_folder_should_be_is_a_user_error(engine: TorchEngine, tmp_path: Path) -> None:
    policy = asyncio.run(moved(engine, SMALL))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        asyncio.run(policy.save(tmp_path / "file" / "adapter"))


def test_names_are_numbered_and_dropped_ones_free_their_memory(engine: TorchEngine) -> None:
    one, two = engine.base().fork("same"), engine.base().fork("same")
    assert one.name != two.name and len(engine.network.bank.adapters) == 2
    frozen = one.frozen()
    one.drop()
    assert len(engine.network.bank.adapters) == 2 and logprobs(frozen, batch())
    frozen.drop()
    frozen.drop()
    two.drop()
    assert not engine.network.bank.adapters


def test_a_dropped_adapter_leaves_nothing_behind_and_says_so(engine: TorchEngine) -> None:
    policy, prompts = engine.base().fork("gone"), [(*range(3, 60), last) for last in (3, 4)]
    asyncio.run(policy.sample(prompts, sampling=Sampling(2)))
    assert engine.sampler.trunks.trunks and engine.sampler.trunks.latest
    tensors = [weakref.ref(tensor) for tensor in engine.network.bank.get(policy.adapter).parameters()]
    policy.drop()
    gc.collect()
    assert not any(tensor() is not None for tensor in tensors), "nor its weights, which C was told of"
    assert not engine.sampler.trunks.trunks and not engine.sampler.trunks.latest
    for verb in (policy.sample(prompts, sampling=Sampling(2)), policy.logprobs(batch()), policy.optim_step(Adam(0.1)),
                 policy.forward_backward(batch(), losses.cross_entropy)):
        with pytest.raises(RuntimeError, match="was dropped"):
            asyncio.run(verb)
    assert asyncio.run(engine.base().sample(prompts, sampling=Sampling(2))), "and the engine lives on"


def test_the_engine_freezes_the_base_itself(tiny_tokenizer: Any) -> None:
    model = make("llama").train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    engine = open_engine(model, tiny_tokenizer)
    try:
        assert not engine.network.model.training
        assert not any(parameter.requires_grad for parameter in engine.network.model.parameters())
    finally:
        engine.close()


def test_the_base_is_never_written_to(engine: TorchEngine) -> None:
    before = {name: tensor.clone() for name, tensor in engine.network.model.state_dict().items()}
    asyncio.run(moved(engine, SMALL, steps=3))
    after = engine.network.model.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert all(parameter.grad is None for parameter in engine.network.model.parameters())
