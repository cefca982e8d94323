"""Preference optimisation by TRL.   python trl_dpo.py PAIRS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32; the reference is the adapter that training begins with.
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
from trl import DPOConfig, DPOTrainer

PAIRS = json.loads(Path(sys.argv[1]).read_text())
BETA = 0.1


class Counting(DPOTrainer):
    """Takes tokens as they are, in order, and counts what they train."""

    trained = 0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
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
    model = adapted()
    config = DPOConfig(beta=BETA, max_length=None, **settings(batch_size, steps))
    trainer = Counting(model=model, args=config, train_dataset=data, processing_class=TOKENIZER)
    return trained(trainer, model)


serve({"epoch": epoch})
