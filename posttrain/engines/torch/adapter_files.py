"""Adapters on disk: PEFT's file format, and beside it the optimiser's state to resume from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posttrain.engines.stepping import kept, restored
from posttrain.engines.torch.adapters import Adapter
from posttrain.engines.torch.lower_layers import layer_number
from posttrain.runs import disk_errors
from posttrain.types import LoRA, UserError

WEIGHTS = "adapter_model.safetensors"
OPTIMISER = "optimiser.safetensors"
TEMPLATE = "chat_template.jinja"  # as transformers names it

PREFIX = "base_model.model."
"""What PEFT puts before the names of the layers."""

UNDERSTOOD = {
    *("r", "lora_alpha", "target_modules", "peft_type", "bias", "init_lora_weights"),
    # where the layers are is read from the names of the tensors
    *("exclude_modules", "layers_to_transform", "layers_pattern"),
    # of no consequence for what a trained adapter computes
    *("task_type", "base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
    *("lora_dropout", "eva_config", "runtime_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
}
"""Entries of a PEFT configuration that may have any value; all others ask for something that is not computed here."""

INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Those that leave the base as it is; the others (PiSSA, OLoRA, LoftQ ...) belong to a base that they have changed."""


def read_adapter(folder: Path, name: str, layers: Mapping[str, nn.Linear], template: str) -> Adapter:
    """An adapter for these layers from a folder in PEFT's format.

    Raises UserError when it is none, is not for these layers, asks for anything that is not computed here, or was
    taught with another chat template (where that was kept).
    """
    weights, lora = _read_peft(folder)
    if (folder / TEMPLATE).exists() and (folder / TEMPLATE).read_bytes() != template.encode():
        raise UserError(
            "this adapter was taught with another chat template than its base model has now",
            place=str(folder / TEMPLATE),
            remedy="give the base model the template that stands there, or teach again",
        )
    tensors = {}
    for path in sorted({key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in weights if ".lora_" in key}):
        a = weights.pop(f"{PREFIX}{path}.lora_A.weight", None)
        b = weights.pop(f"{PREFIX}{path}.lora_B.weight", None)
        layer = layers.get(path)
        if a is None or b is None or layer is None or not _fits(a, b, lora.rank, layer):
            raise UserError(
                f"layer {path!r} of this adapter does not fit the base model",
                place=str(folder),
                remedy="load it on the base model it was trained on (adapter_config.json names it)",
            )
        device = layer.weight.device
        # copies: in the file's memory they would lie as it happens, and by that go the last bits of MKL's products
        a, b = (tensor.to(device, torch.float32, copy=True).requires_grad_() for tensor in (a, b))
        tensors[path] = (a, b)
    if weights:
        raise UserError(
            f"it holds tensors that are not LoRA weights: {', '.join(sorted(weights)[:3])}",
            place=str(folder / WEIGHTS),
            remedy="merge it into its base and load that",
        )
    count = max(map(layer_number, layers)) + 1
    share = (count - min(map(layer_number, tensors))) / count
    return Adapter(name, replace(lora, layers=share), tensors)


def _fits(a: Tensor, b: Tensor, rank: int, layer: nn.Linear) -> bool:
    outputs, inputs = layer.weight.shape
    return a.shape == (rank, inputs) and b.shape == (outputs, rank)


def _read_peft(folder: Path) -> tuple[dict[str, Tensor], LoRA]:
    """The tensors and the shape of a plain LoRA adapter."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"not a readable PEFT adapter: {error}",
            place=str(folder),
            remedy=f"it needs adapter_config.json and {WEIGHTS}",
        ) from error
    odd = sorted(key for key, value in config.items() if value and key not in UNDERSTOOD)
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("init_lora_weights") not in INITIALISATIONS:
        odd.append(f"init_lora_weights {config['init_lora_weights']}")
    if config.get("peft_type") != "LORA" or odd:
        raise UserError(
            f"only plain LoRA adapters can be loaded (this one has {', '.join(odd) or config.get('peft_type')})",
            place=str(folder),
            remedy="merge it into its base and load that",
        )
    ranks = {tensor.shape[0] for key, tensor in weights.items() if ".lora_A." in key}
    if ranks != {rank}:
        raise UserError(
            f"its layers have ranks {sorted(ranks)}, its configuration says {rank}",
            place=str(folder),
            remedy="the two files do not belong together: save the adapter again",
        )
    return weights, LoRA(rank=rank, alpha=alpha)


def write_adapter(adapter: Adapter, folder: Path, base_name: str, template: str) -> None:
    """Writes an adapter in PEFT's file format, and the chat template it was taught with."""
    tensors = {}
    for path, (a, b) in adapter.tensors.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = b.detach().cpu().contiguous()
    leaves = sorted({path.rpartition(".")[2] for path in adapter.tensors})
    upper = sorted({layer_number(path) for path in adapter.tensors}) if adapter.lora.layers < 1 else None
    config = LoraConfig(
        r=adapter.lora.rank,
        lora_alpha=adapter.lora.alpha,  # type: ignore[arg-type]
        target_modules=leaves,
        layers_to_transform=upper,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        inference_mode=True,
    )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OPTIMISER).unlink(missing_ok=True)  # it belonged to other weights
        _write_tensors(tensors, folder / WEIGHTS)
        config.save_pretrained(str(folder))
        (folder / TEMPLATE).write_bytes(template.encode())


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_optimiser(adapter: Adapter, folder: Path) -> None:
    """Writes the optimiser's state and the step count beside the adapter, to resume from."""
    tensors = {"version": torch.tensor(adapter.version), **kept(adapter.optimiser, _numbered(adapter))}
    with disk_errors(folder):
        _write_tensors(tensors, folder / OPTIMISER)


def read_optimiser(adapter: Adapter, folder: Path) -> None:
    """Restores what `write_optimiser` wrote; nothing happens when there is nothing to restore.

    Raises UserError when it is broken, or that of another adapter.
    """
    path = folder / OPTIMISER
    if not path.exists():
        return
    try:
        tensors = load_file(path)
        version = int(tensors.pop("version"))
        optimiser = restored(tensors, _numbered(adapter))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"a broken checkpoint: {error}", place=str(path), remedy="go back to an earlier one") from error
    adapter.version = version
    adapter.optimiser = optimiser or adapter.optimiser


def _numbered(adapter: Adapter) -> dict[str, Tensor]:
    return {str(i): parameter for i, parameter in enumerate(adapter.parameters())}
