#!/usr/bin/env python
"""Weights in 8 bits: how much faster do they answer, and which answers change?

    python benchmarks/int8.py                           # speed, and the answers of an adapter that is trained first
    python benchmarks/int8.py --minutes 0               # speed alone

SmolLM2-135M.  Speed: one stream of 64 tokens after a prompt of 150 (rows/prompts.json), and eight of them, without
guesses at what comes next, in int8 and in the others in turns, in one process.  One thread is compared by CPU time.
Answers: sft on examples/support_triage for so many minutes, and its dev rows in fp32, bfloat16 and int8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import torch
from side_by_side import HERE, Pair, measure_of, record

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.torch import drafts
from posttrain.engines.torch.adapters import BASE, Precision
from posttrain.engines.torch.engine import TorchEngine
from posttrain.evaluation.evaluate import evaluate
from posttrain.runs import Budget, Run
from posttrain.techniques import sft
from posttrain.types import Sampling

TOKENS = 64
OTHERS: tuple[Precision, ...] = ("float32", "bfloat16")


def compute_in(engine: TorchEngine, precision: Precision) -> None:
    """From now on; what was cached in another is forgotten."""

    def change() -> None:
        engine.network.bank.precision = precision
        engine.sampler.begin_afresh(BASE)

    engine.thread.submit(change).result()


def speed(engine: TorchEngine, precision: Precision, streams: int) -> dict[str, float]:
    prompts = [tuple(prompt) for prompt in json.loads((HERE / "rows" / "prompts.json").read_text())[:streams]]
    compute_in(engine, precision)
    asyncio.run(engine.base().sample(prompts[:1], sampling=Sampling(2)))  # weights are laid out once
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(engine.base().sample(prompts, sampling=Sampling(TOKENS)))
    return {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "threads": torch.get_num_threads(),
    }


def compare_speed(engine: TorchEngine, given: argparse.Namespace) -> None:
    stop_tokens, longest = engine.sampler.stop_tokens, drafts.LONGEST_DRAFT
    engine.sampler.stop_tokens, drafts.LONGEST_DRAFT = frozenset(), 0
    for streams in (1, 8):
        for other in OTHERS:
            found = []
            for turn in range(given.pairs):
                first, second = ("int8", other) if turn % 2 else (other, "int8")
                taken = {each: speed(engine, each, streams) for each in (first, second)}  # type: ignore[arg-type]
                found.append(Pair(taken["int8"], taken[other]))
            settings = {"streams": streams, "tokens": TOKENS, "threads": given.threads}
            record(f"int8, {streams} at once", f"posttrain in {other}", measure_of(given), 1.0, found, settings)
    engine.sampler.stop_tokens, drafts.LONGEST_DRAFT = stop_tokens, longest


async def compare_answers(engine: TorchEngine, minutes: float) -> None:
    task = tasks.load(str(HERE.parent / "examples" / "support_triage"))
    with tempfile.TemporaryDirectory() as folder:
        start = PolicyCandidate.of("smollm2", engine.base(), task)
        taught = await sft.teach(start, task, Run(Path(folder) / "sft", budget=Budget(minutes)))
        answers = {}
        for precision in (*OTHERS, "int8"):
            compute_in(engine, precision)  # type: ignore[arg-type]
            seen = await evaluate(taught, task, "dev", Run(Path(folder) / precision))
            answers[precision] = [attempt.answer for attempt in seen.attempts]
            changed = sum(a != b for a, b in zip(answers[precision], answers["float32"], strict=True))
            print(f"{precision}: {seen.score:.1%} right of {seen.n} dev rows; {changed} answers are not those of fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each precision (default 3)")
    parser.add_argument("--minutes", type=float, default=3, help="of training (default 3; 0: no answers)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    engine = TorchEngine.open()
    if given.minutes:
        asyncio.run(compare_answers(engine, given.minutes))
    compare_speed(engine, given)
    engine.close()


if __name__ == "__main__":
    main()
