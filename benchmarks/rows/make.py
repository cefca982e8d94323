#!/usr/bin/env python
"""Made the pinned rows beside it, of SmolLM2's tokens: from the messages of examples/support_triage, with a seed.

shared_prompt.json: 64 rows of 160 tokens, the first 120 of which all share; the last 8 are trained.
nothing_shared.json: 64 rows of 40 to 240 tokens that share nothing; the last fifth is trained.  By eight, rows of
about one length lie together, which is the best order for who pads.
pairs.json: 32 prompts of 150 tokens that share nothing, each with two answers of 40.
prompts.json, prompts_shared.json: 64 prompts of 150 tokens that share nothing, or the first 120.
episodes.json: 4 episodes of 8 rows: a system prompt of 80 tokens, and 4 turns of 30 tokens with two answers of 20 each,
with the first of which the episode goes on; an answer is trained, behind all that came before it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from posttrain import tasks
from posttrain.engines.torch.base import resolve

HERE = Path(__file__).parent


def main() -> None:
    tokenizer, draw = AutoTokenizer.from_pretrained(resolve("smollm2")), random.Random(0)
    task = tasks.load(str(HERE.parents[1] / "examples" / "support_triage"))
    texts = [row.text for split in ("train", "dev", "test") for row in task.rows(split)]

    def words(count: int) -> list[int]:
        tokens = [draw.randrange(1000, 40000) for _ in range(2)]  # no two rows begin alike
        while len(tokens) < count:
            tokens += tokenizer(draw.choice(texts) + "\n")["input_ids"]
        return tokens[:count]

    shared = words(120)
    write("shared_prompt", [{"tokens": shared + words(40), "trained_from": 152} for _ in range(64)])
    lengths = sorted(draw.randint(40, 240) for _ in range(64))
    batches = [lengths[i : i + 8] for i in range(0, 64, 8)]
    draw.shuffle(batches)
    lengths = [length for batch in batches for length in batch]
    write("nothing_shared", [{"tokens": words(n), "trained_from": n - n // 5} for n in lengths])
    write("pairs", [{"prompt": words(150), "chosen": words(40), "rejected": words(40)} for _ in range(32)])
    write("prompts", [words(150) for _ in range(64)])
    write("prompts_shared", [shared + words(30) for _ in range(64)])
    rows = []
    for _ in range(4):
        so_far = words(80)
        for _ in range(4):
            so_far += words(30)
            first, second = (so_far + words(20) for _ in range(2))
            rows += [{"tokens": row, "trained_from": len(so_far)} for row in (first, second)]
            so_far = [*first]
    write("episodes", rows)


def write(name: str, rows: list[Any]) -> None:
    (HERE / f"{name}.json").write_text("[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")


if __name__ == "__main__":
    main()
