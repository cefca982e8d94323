"""Supervised fine-tuning by TRL.   python trl_sft.py ROWS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32, rows of one length together where lengths differ.
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
from trl import SFTConfig, SFTTrainer

ROWS, START, MODEL = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3]
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
BASE = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
RATE = 1e-3
THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work


class Counting(SFTTrainer):
    """Counts what reaches the model, and keeps each step's loss."""

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        self.forwarded = getattr(self, "forwarded", 0) + inputs["input_ids"].numel()
        self.trained = getattr(self, "trained", 0) + int((inputs["labels"][:, 1:] != -100).sum())
        return super().compute_loss(model, inputs, *arguments, **named)

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def epoch(batch_size: int, steps: int) -> dict[str, Any]:
    """Trains `steps` batches from the start, the same rows in the same order."""
    rows = [ROWS[j % len(ROWS)] for j in range(batch_size * steps)]
    data = Dataset.from_list([
        {
            "input_ids": row["tokens"],
            "completion_mask": [int(i >= row["trained_from"]) for i in range(len(row["tokens"]))],
        }
        for row in rows
    ])
    model = PeftModel.from_pretrained(BASE, START, is_trainable=True)
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch_size, max_steps=steps, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, packing=False, max_length=None,
        gradient_checkpointing=False, learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=1.0, disable_tqdm=True, completion_only_loss=True, dataloader_num_workers=0,
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
