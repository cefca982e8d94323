#!/usr/bin/env python
"""Frozen weights in fp32: which library multiplies them fastest on this processor?

    python benchmarks/products.py                       # a table in GFLOP/s
    python benchmarks/products.py --threads 2

At the shapes of SmolLM2-135M: gate and up as one, down, the gradient through gate and up, the output head (up to 64
rows).  MKL is what `F.linear` calls.  Weights lie by row, as they are loaded, by column with some to spare, as the
engine has them, or laid out by oneDNN (a copy).  Each is the best of a few turns, by CPU time on one thread and by the
clock on several.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from side_by_side import machine
from torch import Tensor
from torch.nn.functional import linear

from posttrain.engines.torch import onednn
from posttrain.engines.torch.weights import SPARE

ROWS = (1, 4, 8, 64, 552)
HEAD_ROWS = 64
HIDDEN, WIDE, VOCABULARY = 576, 1536, 49152
TURNS, CALLS = 5, 3


def rate(multiply: Callable[[], object], operations: int, clock: Callable[[], float]) -> float:
    """GFLOP/s, the best of some turns after one to warm up."""
    multiply()
    best = float("inf")
    for _ in range(TURNS):
        begun = clock()
        for _ in range(CALLS):
            multiply()
        best = min(best, (clock() - begun) / CALLS)
    return operations / best / 1e9


def row(what: str, rows: int, weight: Tensor, clock: Callable[[], float]) -> str:
    """A line of the table: rows [rows, in] times weight [out, in], which may be a view."""
    x = torch.randn(rows, weight.shape[1])
    whole = torch.cat([weight, weight.new_zeros(SPARE, weight.shape[1])]).t().contiguous().t()
    by_column, laid_out = whole[: len(weight)], onednn.lay_out(weight)
    ways: tuple[Callable[[], object], ...] = (
        lambda: linear(x, weight), lambda: linear(x, by_column), lambda: onednn.multiply(x, weight, None),
        lambda: onednn.multiply(x, whole, None), lambda: onednn.multiply(x, laid_out, None),
    )
    rates = [rate(way, 2 * rows * weight.numel(), clock) for way in ways]
    return f"| {what} | {rows} | " + " | ".join(f"{each:.0f}" for each in rates) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    gate_and_up, down = torch.randn(2 * WIDE, HIDDEN), torch.randn(HIDDEN, WIDE)
    weights = {"gate and up": gate_and_up, "down": down, "gradient through gate and up": gate_and_up.t(),
               "head": torch.randn(VOCABULARY, HIDDEN)}
    print(f"{machine()}, torch {torch.__version__}, {given.threads} thread(s)\n")
    print("| GFLOP/s | rows | MKL (`F.linear`) | MKL, by column | oneDNN | oneDNN, by column | oneDNN, laid out |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with torch.inference_mode():
        for what, weight in weights.items():
            for rows in ROWS:
                if what != "head" or rows <= HEAD_ROWS:
                    print(row(what, rows, weight, clock), flush=True)


if __name__ == "__main__":
    main()
