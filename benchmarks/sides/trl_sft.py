"""Supervised fine-tuning by TRL.   python trl_sft.py ROWS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32, rows of one length together where lengths differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from _trl import TOKENIZER, adapted, settings, trained
from _worker import serve
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

ROWS = json.loads(Path(sys.argv[1]).read_text())


class Counting(SFTTrainer):
    """Takes rows in order, and counts what they train."""

    trained = 0

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        self.trained += int((inputs["labels"][:, 1:] != -100).sum())
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
    model = adapted()
    config = SFTConfig(packing=False, max_length=None, completion_only_loss=True, **settings(batch_size, steps))
    trainer = Counting(model=model, args=config, train_dataset=data, processing_class=TOKENIZER)
    return trained(trainer, model)


serve({"epoch": epoch})
