"""Base and adapter merged into plain safetensors: what any server or converter for the base model's family loads.

The weights are fp32, as they were trained; in a shorter type they would no longer be equal.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from posttrain.exports._companions import LocalPolicy, trained, write_companions
from posttrain.exports._proof import Proof, proven
from posttrain.types import Candidate, Datum, Tokens

LOADING = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
"""


async def export(candidate: Candidate, folder: Path, probes: Sequence[Datum], prompts: Sequence[Tokens]) -> Proof:
    """Writes the merged model, tokenizer, prompt and README to `folder`; see _proof for what is compared.

    Raises UserError when there are no trained weights, the folder exists, or the export is not equal.
    """
    taught, policy = trained(candidate, folder)

    async def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory() as adapter:
            await policy.save(Path(adapter))
            await asyncio.to_thread(_merge, policy, Path(adapter), partial)
        await asyncio.to_thread(write_companions, taught, policy, partial, LOADING)

    return await proven(folder, policy, write, read, probes, prompts)


def read(folder: Path) -> Any:
    """The model in `folder`, in fp32, by plain transformers."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def _merge(policy: LocalPolicy, adapter: Path, folder: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(str(policy.model_folder), dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    # Merged weights are plain ones, whatever the base was stored as: no later load may take them for quantised.
    if hasattr(merged.config, "quantization_config"):
        del merged.config.quantization_config
    try:
        merged.save_pretrained(folder)
    except SafetensorError as error:  # how safetensors tells of a full disk
        raise OSError(str(error)) from error
