"""What cannot be loaded as it is, is refused: nothing is made up in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

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
    with pytest.raises(UserError, match="cannot load this model"):
        TorchEngine.open(str(folder), device="cpu")


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        TorchEngine.open(str(tmp_path))
    with pytest.raises(UserError, match="no such model folder"):
        TorchEngine.open(str(tmp_path / "nowhere"))
