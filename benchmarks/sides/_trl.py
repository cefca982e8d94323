"""What TRL's sides of a comparison share: the model, its best settings on a CPU, and what a training came to."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import trl
from _counting import counting
from _worker import stopwatch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer import utils as trl_utils

START, MODEL = sys.argv[2], sys.argv[3]
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
BASE = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work


def adapted() -> Any:
    """The model with the adapter that both sides begin with."""
    return PeftModel.from_pretrained(BASE, START, is_trainable=True)


def settings(batch_size: int, steps: int) -> dict[str, Any]:
    """No gradient checkpointing, fp32, a constant rate."""
    return {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": batch_size, "max_steps": steps,
        "logging_steps": 1, "report_to": [], "save_strategy": "no", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "max_grad_norm": 1.0, "disable_tqdm": True, "dataloader_num_workers": 0,
    }


@contextmanager
def counting_fused_head(counts: dict[str, int]) -> Iterator[None]:
    """Adds the rows that TRL multiplies with the head's weights without calling the head: on a CPU those of all
    positions."""
    fused = trl_utils._ChunkedLogProbFunction

    def apply(hidden: torch.Tensor, *rest: Any) -> Any:
        counts["head_rows"] += len(hidden)
        return fused.apply(hidden, *rest)

    trl_utils._ChunkedLogProbFunction = SimpleNamespace(apply=apply)
    try:
        yield
    finally:
        trl_utils._ChunkedLogProbFunction = fused


def trained(trainer: Any, model: Any) -> dict[str, Any]:
    """Trains, and gives back what it took, and loss and gradient norm of every step."""
    with stopwatch() as taken, counting(model) as counts, counting_fused_head(counts):
        trainer.train()
    logs = [record for record in trainer.state.log_history if "loss" in record]
    model.unload()
    return taken | counts | {
        "version": trl.__version__,
        "losses": [record["loss"] for record in logs],
        "gradient_norms": [record["grad_norm"] for record in logs],
        "trained_tokens": trainer.trained,
        "threads": THREADS,
        "settings": told(trainer.args),
    }


def told(arguments: Any) -> dict[str, Any]:
    """What a trainer's arguments are but for its defaults."""
    default = type(arguments)(output_dir=arguments.output_dir, use_cpu=True).to_dict()
    return {name: value for name, value in arguments.to_dict().items() if value != default[name]}
