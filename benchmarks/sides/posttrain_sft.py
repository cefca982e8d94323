"""Supervised fine-tuning by posttrain.   python posttrain_sft.py ROWS.json ADAPTER_FOLDER"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _posttrain import ENGINE, RATE, THREADS, counting, make_start
from _worker import serve, stopwatch
from torch.nn.functional import linear

from posttrain import losses
from posttrain.engines.torch import native, onednn
from posttrain.optimisers import Adam
from posttrain.types import Datum, LoRA

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
        with stopwatch() as taken, counting() as counts:
            for i in range(steps):
                batch = [DATA[j % len(DATA)] for j in range(i * batch_size, (i + 1) * batch_size)]
                trained = float(sum(len(datum.trained) for datum in batch))
                metrics = await policy.forward_backward(batch, losses.cross_entropy, normaliser=trained)
                every.append(metrics | await policy.optim_step(Adam(RATE, max_grad_norm=1.0)))
        policy.drop()
        return taken | counts | {
            "losses": [each["loss"] for each in every],
            "gradient_norms": [each["gradient_norm"] for each in every],
            "trained_tokens": sum(each["trained_tokens"] for each in every),
            "threads": THREADS,
        }

    return asyncio.run(train())


def products(rows: int) -> dict[str, Any]:
    """The best rate at the shapes of the model's linear layers, of weights that lie by row and by column, by MKL
    (`F.linear`), oneDNN and, on one thread, ours; and how many parameters there are."""
    layers = [*ENGINE.network.bank.layers.values()]
    ways: dict[str, Callable[..., Any]] = {"F.linear": linear, "oneDNN": partial(onednn.multiply, bias=None)}
    if native.suits_here(torch.empty(0)):
        ways["ours"] = native.products.multiply
    best = dict.fromkeys(ways, 0.0)
    for shape in {layer.weight.shape for layer in layers}:
        x, weight = torch.randn(rows, shape[1]), torch.randn(shape)
        for lying in (weight, weight.t().contiguous().t()):
            for name, multiply in ways.items():
                best[name] = max(best[name], 2 * rows * weight.numel() / _seconds(partial(multiply, x, lying)))
    adapter = ENGINE.network.bank.create("counted", LoRA(), seed=0)
    del ENGINE.network.bank.adapters[adapter.name]
    return {
        "operations_per_second": best,
        "base_parameters": sum(layer.weight.numel() for layer in layers),
        "adapter_parameters": sum(tensor.numel() for tensor in adapter.parameters()),
        "head_parameters": ENGINE.network.output_head.base.weight.numel(),
    }


def _seconds(multiply: Callable[[], object]) -> float:
    """The least that a product took, after one to warm up."""
    multiply()
    least = float("inf")
    for _ in range(5):
        with stopwatch() as taken:
            for _ in range(4):
                multiply()
        least = min(least, taken["cpu_seconds" if THREADS == 1 else "wall_seconds"] / 4)
    return least


serve({"start": start, "epoch": epoch, "products": products})
