"""Steps of GRPO by TRL.   python trl_grpo.py PROMPTS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32, one update for what was sampled, no reference model.
All is sampled in one batch, and learnt from in micro-batches.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import trl
from _rewards import reward
from _worker import serve, stopwatch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

PROMPTS, START, MODEL = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3]
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
BASE = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
RATE = 1e-3
MICRO_BATCH = 16  # all 64 at once do not fit into 24 GB: the logits of every token are held
THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work


class Counting(GRPOTrainer):
    """Takes tokens as they are, and keeps what it learns from first."""

    forwarded = trained = 0

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.rollouts: list[dict[str, Any]] = []

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [json.loads(prompt) for prompt in prompts], None, {}

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        prompt, completion = inputs["prompt_ids"], inputs["completion_ids"]
        sampling = prompt.numel() + completion.numel()  # all but the last token of each are fed
        self.forwarded += sampling + prompt.numel() + completion.numel()
        self.trained += int(inputs["completion_mask"].sum())
        if self.state.global_step == 0:
            self.rollouts += [
                {"prompt": p, "tokens": c, "advantage": a}
                for p, c, a in zip(prompt.tolist(), completion.tolist(), inputs["advantages"].tolist(), strict=True)
            ]
        return super()._compute_loss(model, inputs)


def epoch(rows: int, group_size: int, tokens: int, steps: int) -> dict[str, Any]:
    """`steps` steps from the start: completions are sampled, rewarded and learnt from."""
    data = Dataset.from_list([{"prompt": json.dumps(prompt)} for prompt in PROMPTS[: rows * steps]])
    model = PeftModel.from_pretrained(BASE, START, is_trainable=True)
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=rows * group_size // MICRO_BATCH, shuffle_dataset=False, max_steps=steps,
        num_generations=group_size, max_completion_length=tokens, generation_kwargs={"min_new_tokens": tokens},
        logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, bf16=False, beta=0.0, loss_type="dapo",
        gradient_checkpointing=False, learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0,
        max_grad_norm=1.0, disable_tqdm=True, dataloader_num_workers=0,
    )

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward(each) for each in completion_ids]

    trainer = Counting(
        model=model, args=config, train_dataset=data, processing_class=TOKENIZER, reward_funcs=rewards
    )
    with stopwatch() as taken:
        trainer.train()
    logs = [record for record in trainer.state.log_history if "loss" in record]
    model.unload()
    return taken | {
        "version": trl.__version__,
        "gradient_norms": [record["grad_norm"] for record in logs],
        "forwarded_tokens": trainer.forwarded,
        "trained_tokens": trainer.trained,
        "rollouts": trainer.rollouts,
        "threads": THREADS,
    }


serve({"epoch": epoch})
