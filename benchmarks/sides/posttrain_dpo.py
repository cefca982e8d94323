"""Preference optimisation by posttrain.   python posttrain_dpo.py PAIRS.json ADAPTER_FOLDER"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from _posttrain import ENGINE, RATE, THREADS, counting, make_start
from _worker import serve, stopwatch

from posttrain import losses
from posttrain.optimisers import Adam
from posttrain.techniques.dpo import anchored
from posttrain.types import Datum

PAIRS, START = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
BETA = 0.1


def datum(prompt: list[int], answer: list[int], group: str) -> Datum:
    return Datum((*prompt, *answer), (*[0.0] * len(prompt), *[1.0] * len(answer)), group=group)


DATA = [datum(pair["prompt"], pair[side], str(i)) for i, pair in enumerate(PAIRS) for side in ("chosen", "rejected")]


def start(seed: int) -> dict[str, Any]:
    return make_start(START, DATA[:8], seed)


def epoch(batch_size: int, steps: int) -> dict[str, Any]:
    """Trains `steps` batches of so many pairs from the start, which is the reference too."""

    async def train() -> dict[str, Any]:
        policy = ENGINE.load(START)
        reference = policy.frozen()
        every = []
        with stopwatch() as taken, counting() as counts:
            data = await anchored(DATA[: 2 * batch_size * steps], reference)
            for i in range(steps):
                batch = data[2 * i * batch_size : 2 * (i + 1) * batch_size]
                metrics = await policy.forward_backward(batch, losses.dpo(BETA), normaliser=float(batch_size))
                every.append(metrics | await policy.optim_step(Adam(RATE, max_grad_norm=1.0)))
        policy.drop()
        reference.drop()
        return taken | counts | {
            "losses": [each["loss"] for each in every],
            "gradient_norms": [each["gradient_norm"] for each in every],
            "trained_tokens": sum(each["trained_tokens"] for each in every),
            "threads": THREADS,
        }

    return asyncio.run(train())


serve({"start": start, "epoch": epoch})
