"""Steps of GRPO by TRL.   python trl_grpo.py PROMPTS.json ADAPTER_FOLDER MODEL_FOLDER

Its best settings on a CPU: no gradient checkpointing, fp32, one update for what was sampled, no reference model.
All is sampled in one batch, and learnt from in micro-batches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from _rewards import reward
from _trl import TOKENIZER, adapted, settings, trained
from _worker import serve
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

PROMPTS = json.loads(Path(sys.argv[1]).read_text())
MICRO_BATCH = 16  # all 64 at once do not fit into 24 GB: the logits of every token are held


class Counting(GRPOTrainer):
    """Takes tokens as they are, and keeps what it learns from first."""

    trained = 0

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.rollouts: list[dict[str, Any]] = []

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [json.loads(prompt) for prompt in prompts], None, {}

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        prompt, completion = inputs["prompt_ids"], inputs["completion_ids"]
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
    model = adapted()
    config = GRPOConfig(
        gradient_accumulation_steps=rows * group_size // MICRO_BATCH, shuffle_dataset=False,
        num_generations=group_size, max_completion_length=tokens, generation_kwargs={"min_new_tokens": tokens},
        beta=0.0, loss_type="dapo", **settings(MICRO_BATCH, steps),
    )

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward(each) for each in completion_ids]

    trainer = Counting(
        model=model, args=config, train_dataset=data, processing_class=TOKENIZER, reward_funcs=rewards
    )
    return trained(trainer, model) | {"rollouts": trainer.rollouts}


serve({"epoch": epoch})
