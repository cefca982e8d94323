"""The adapter alone, in PEFT's format: small, and loads on the base model it was trained on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from posttrain.exports._companions import trained, write_companions
from posttrain.exports._proof import Proof, proven
from posttrain.types import Candidate, Datum, Tokens

LOADING = """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
model.generation_config = GenerationConfig.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
"""


async def export(candidate: Candidate, folder: Path, probes: Sequence[Datum], prompts: Sequence[Tokens]) -> Proof:
    """Writes the adapter, tokenizer, prompt and README to `folder`; see _proof for what is compared.

    Raises UserError when there are no trained weights, the folder exists, or the export is not equal.
    """
    taught, policy = trained(candidate, folder)

    async def write(partial: Path) -> None:
        await policy.save(partial)
        await asyncio.to_thread(write_companions, taught, policy, partial, LOADING)

    return await proven(folder, policy, write, read, probes, prompts)


def read(folder: Path) -> Any:
    """The base model with the adapter in `folder`, in fp32, by plain transformers and peft."""
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(network, str(folder))
