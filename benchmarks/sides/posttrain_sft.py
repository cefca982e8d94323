"""Supervised fine-tuning by posttrain.   python posttrain_sft.py ROWS.json ADAPTER_FOLDER"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import torch
from _worker import serve, stopwatch

from posttrain import losses
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import Adam, Datum, LoRA

THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work
ROWS, START = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
ENGINE = TorchEngine.open(precision="float32")
DATA = [
    Datum(tuple(row["tokens"]), tuple(float(i >= row["trained_from"]) for i in range(len(row["tokens"]))))
    for row in ROWS
]
RATE = 1e-3


def start(seed: int) -> dict[str, Any]:
    """Writes the adapter that both sides begin with: two steps from a fresh one, so that B is not zero."""

    async def make() -> None:
        policy = ENGINE.base().fork("start", LoRA(), seed=seed)
        for batch in (DATA[:4], DATA[4:8]):
            await step(policy, batch)
        await policy.save(START)
        policy.drop()

    asyncio.run(make())
    return {"model": str(ENGINE.source)}


async def step(policy: Any, batch: list[Datum]) -> dict[str, float]:
    trained = float(sum(len(datum.trained) for datum in batch))
    metrics = await policy.forward_backward(batch, losses.cross_entropy, normaliser=trained)
    return metrics | await policy.optim_step(Adam(RATE, max_grad_norm=1.0))


def epoch(batch_size: int, steps: int) -> dict[str, Any]:
    """Trains `steps` batches from the start.  Gives loss and gradient norm of each, and what was computed."""

    async def train() -> dict[str, Any]:
        policy = ENGINE.load(START)
        every = []
        with stopwatch() as taken:
            for i in range(steps):
                batch = [DATA[j % len(DATA)] for j in range(i * batch_size, (i + 1) * batch_size)]
                every.append(await step(policy, batch))
        policy.drop()
        return taken | {
            "losses": [each["negative_log_likelihood"] / each["trained_tokens"] for each in every],
            "gradient_norms": [each["gradient_norm"] for each in every],
            "forwarded_tokens": sum(each["forwarded_tokens"] for each in every),
            "trained_tokens": sum(each["trained_tokens"] for each in every),
            "head_rows": sum(each["trained_tokens"] for each in every),
            "threads": THREADS,
        }

    return asyncio.run(train())


serve({"start": start, "epoch": epoch})
