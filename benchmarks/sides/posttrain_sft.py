"""Supervised fine-tuning by posttrain.   python posttrain_sft.py ROWS.json ADAPTER_FOLDER"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from _posttrain import ENGINE, RATE, THREADS, make_start
from _worker import serve, stopwatch

from posttrain import losses
from posttrain.optimisers import Adam
from posttrain.types import Datum

ROWS, START = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
DATA = [
    Datum(tuple(row["tokens"]), tuple(float(i >= row["trained_from"]) for i in range(len(row["tokens"]))))
    for row in ROWS
]


def start(seed: int) -> dict[str, Any]:
    return make_start(START, DATA[:8], seed)


def epoch(batch_size: int, steps: int) -> dict[str, Any]:
    """Trains `steps` batches from the start.  Gives loss and gradient norm of each, and what was computed."""

    async def train() -> dict[str, Any]:
        policy = ENGINE.load(START)
        every = []
        with stopwatch() as taken:
            for i in range(steps):
                batch = [DATA[j % len(DATA)] for j in range(i * batch_size, (i + 1) * batch_size)]
                trained = float(sum(len(datum.trained) for datum in batch))
                metrics = await policy.forward_backward(batch, losses.cross_entropy, normaliser=trained)
                every.append(metrics | await policy.optim_step(Adam(RATE, max_grad_norm=1.0)))
        policy.drop()
        return taken | {
            "losses": [each["loss"] for each in every],
            "gradient_norms": [each["gradient_norm"] for each in every],
            "forwarded_tokens": sum(each["forwarded_tokens"] for each in every),
            "trained_tokens": sum(each["trained_tokens"] for each in every),
            "head_rows": sum(each["trained_tokens"] for each in every),
            "threads": THREADS,
        }

    return asyncio.run(train())


serve({"start": start, "epoch": epoch})
