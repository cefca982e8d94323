"""Preference optimisation by TRL.   python trl_dpo.py PAIRS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32; the reference is the adapter that training begins with.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import trl
from _worker import serve, stopwatch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

PAIRS, START, MODEL = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3]
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
BASE = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
RATE, BETA = 1e-3, 0.1
THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work


class Counting(DPOTrainer):
    """Takes tokens as they are, in order, and counts what reaches the model."""

    forwarded = trained = 0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        self.forwarded += 2 * inputs["input_ids"].numel()  # once for the reference
        self.trained += int(inputs["completion_mask"][:, 1:].sum())
        return super()._compute_loss(model, inputs, *arguments, **named)

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def epoch(batch_size: int, steps: int) -> dict[str, Any]:
    """Trains `steps` batches of so many pairs from the start."""
    data = Dataset.from_list([
        {"prompt_ids": pair["prompt"], "chosen_ids": pair["chosen"], "rejected_ids": pair["rejected"]}
        for pair in PAIRS[: batch_size * steps]
    ])
    model = PeftModel.from_pretrained(BASE, START, is_trainable=True)
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch_size, max_steps=steps, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, beta=BETA, max_length=None,
        gradient_checkpointing=False, learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=1.0, disable_tqdm=True, dataloader_num_workers=0,
    )
    trainer = Counting(model=model, args=config, train_dataset=data, processing_class=TOKENIZER)
    with stopwatch() as taken:
        trainer.train()
    logs = [record for record in trainer.state.log_history if "loss" in record]
    model.unload()
    return taken | {
        "version": trl.__version__,
        "losses": [record["loss"] for record in logs],
        "gradient_norms": [record["grad_norm"] for record in logs],
        "forwarded_tokens": trainer.forwarded,
        "trained_tokens": trainer.trained,
        "head_rows": trainer.forwarded,
        "threads": THREADS,
    }


serve({"epoch": epoch})
