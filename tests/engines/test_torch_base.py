"""What cannot be loaded as it is, is refused: nothing is made up in its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import UserError


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def test_a_model_that_lacks_weights_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="up_proj") as caught:
        TorchEngine.open(str(folder), device="cpu")
    assert caught.value.place == str(folder) and caught.value.remedy


@pytest.mark.parametrize("keep", [0, 5, 3000])
def test_a_model_cut_short_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot load the weights of this model"):
        TorchEngine.open(str(folder), device="cpu")


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        TorchEngine.open(str(tmp_path))
    with pytest.raises(UserError, match="no such model folder"):
        TorchEngine.open(str(tmp_path / "nowhere"))


def configured(folder: Path, changes: Mapping[str, Any]) -> str:
    return json.dumps(json.loads((folder / "config.json").read_text()) | changes)


@pytest.mark.parametrize(("file", "text", "said"), [
    ("config.json", "[1]", "configuration .config.json. of this model: .*model_type"),
    ("config.json", "{", "configuration .* not a valid JSON file"),
    ("config.json", {"model_type": "nope"}, "configuration .*`nope`"),
    ("config.json", {"hidden_size": "big"}, "configuration .*'hidden_size' expected int, got str"),
    ("config.json", {"num_attention_heads": 7}, "configuration .*not a multiple of the number of attention heads"),
    ("config.json", {"hidden_size": -8}, "weights of this model: RuntimeError .*negative dimension"),
    ("config.json", {"model_type": "bert"}, "lacks .* of its weights"),
    ("tokenizer.json", "{}", "tokenizer of this model: KeyError 'added_tokens'"),
    ("tokenizer.json", "[]", "tokenizer of this model: TypeError"),
    ("tokenizer_config.json", "[]", "tokenizer of this model: AttributeError"),
    ("pytorch_model.bin", "hello", "weights of this model"),
    ("model.safetensors.index.json", "{}", "weights of this model: KeyError 'weight_map'"),
])
def test_a_broken_model_folder_is_refused_with_the_part_that_is_broken(
        folder: Path, file: str, text: str | dict[str, Any], said: str) -> None:
    if "model." in file:
        (folder / "model.safetensors").unlink()
    (folder / file).write_text(text if isinstance(text, str) else configured(folder, text))
    with pytest.raises(UserError, match=said) as caught:
        TorchEngine.open(str(folder), device="cpu")
    assert caught.value.place == str(folder) and caught.value.remedy


def test_an_adapter_is_no_model(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "meta/small"}')
    with pytest.raises(UserError, match="an adapter and not a model: it belongs to meta/small"):
        TorchEngine.open(str(folder), device="cpu")
