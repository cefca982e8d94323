#!/usr/bin/env python
"""Eight adapters on one base: what does it save to let them write, and learn, side by side?

    python benchmarks/adapters.py                       # decoding, and a sweep with and without dropping losers
    python benchmarks/adapters.py --question decoding

SmolLM2-135M in fp32, LoRA of rank 16.  Decoding: one stream of 64 tokens each, all on all linear layers, after prompts
that are cut to 16 tokens (rows/prompts.json): to read a long one costs the same together as one by one.  Sweep: eight
learning rates on 16 rows of examples/support_triage, three epochs at most, judged on 16 dev rows after each; once the
worse half is dropped after every epoch, once none is; against the eight trained one after another.  Both sides are
ours, in one process and in turns.  One thread is compared by CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from side_by_side import HERE, Pair, measure_of, record

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.torch.engine import TorchEngine
from posttrain.runs import Run
from posttrain.techniques import _sweep, sft
from posttrain.types import LoRA, Sampling

COUNT = 8
RATES = [1e-6 * 10 ** (i / 2) for i in range(COUNT)]
PROMPT, TOKENS, ROWS, EPOCHS = 16, 64, 16, 3
Work = Callable[[], Awaitable[Any]]


def measured(work: Work) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())  # type: ignore[arg-type]
    return {
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "threads": torch.get_num_threads(),
    }


def answer(question: str, ours: Work, peers: Work, target: float, given: argparse.Namespace) -> None:
    measured(ours)  # to warm up
    found = []
    for i in range(given.pairs):
        if i % 2:
            theirs = measured(peers)
            found.append(Pair(measured(ours), theirs))
        else:
            mine = measured(ours)
            found.append(Pair(mine, measured(peers)))
    settings = {"adapters": COUNT, "threads": given.threads}
    record(question, "one after another", measure_of(given), target, found, settings)


def decoding(engine: TorchEngine) -> tuple[Work, Work]:
    """Eight streams, each by an adapter of its own: all at once, and one by one."""
    engine.sampler.stop_tokens = frozenset()
    prompts = [tuple(prompt[:PROMPT]) for prompt in json.loads((HERE / "rows" / "prompts.json").read_text())[:COUNT]]
    policies = [engine.base().fork(f"stream-{i}", LoRA(), seed=i) for i in range(COUNT)]
    for policy in policies:  # B is zero in a fresh one
        for _, b in engine.network.bank.get(policy.adapter).tensors.values():
            b.data.normal_(0, 0.01)
    sampling = Sampling(max_tokens=TOKENS)

    def forget() -> None:
        """What was written in an earlier turn, which is the same, would be guessed."""
        for policy in policies:
            engine.thread.submit(partial(engine.sampler.begin_afresh, policy.adapter)).result()

    async def one(i: int) -> list[int]:
        ((completion,),) = await policies[i].sample([prompts[i]], sampling=sampling)
        return [*completion.tokens]

    async def together() -> list[list[int]]:
        forget()
        return list(await asyncio.gather(*map(one, range(COUNT))))

    async def one_by_one() -> list[list[int]]:
        forget()
        return [await one(i) for i in range(COUNT)]

    if asyncio.run(together()) != asyncio.run(one_by_one()):
        raise RuntimeError("together they write something else; no ratio of that")
    return together, one_by_one


def sweeps(engine: TorchEngine) -> tuple[Work, Work, Work]:
    """Eight trainings: with losers dropped, with none dropped, and one after another."""
    task = tasks.load(str(HERE.parent / "examples" / "support_triage"))
    splits = {**task.splits, "train": task.rows("train")[:ROWS], "dev": task.rows("dev")[:16]}
    task = replace(task, splits=splits)
    start = PolicyCandidate.of("smollm2", engine.base(), task)
    configs = {f"{rate:.1e}": sft.Config(learning_rate=rate, epochs=EPOCHS, patience=EPOCHS) for rate in RATES}

    async def swept() -> None:
        with tempfile.TemporaryDirectory() as folder:
            learnt = await _sweep.teach(sft, start, task, Run(Path(folder)), configs)
            learnt.policy.drop()

    async def to_their_ends(side_by_side: bool) -> None:
        async def whole(training: sft.Training) -> None:
            await training.begin()
            while await training.round():
                pass
            training.policy.drop()

        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder))
            if side_by_side:
                trainings = [sft.start(start, task, run.child(name), config) for name, config in configs.items()]
                await asyncio.gather(*map(whole, trainings))
                return
            for name, config in configs.items():
                await whole(sft.start(start, task, run.child(name), config))

    return swept, lambda: to_their_ends(True), lambda: to_their_ends(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    parser.add_argument("--question", choices=("decoding", "dropped", "kept"), action="append", help="(default: all)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each side (default 3)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    engine = TorchEngine.open(precision="float32")
    swept, all_at_once, one_by_one = sweeps(engine)
    answers: dict[str, Callable[[], None]] = {
        "decoding": lambda: answer("8 adapters, one stream each", *decoding(engine), 3.0, given),
        "dropped": lambda: answer("sweep of 8, losers dropped", swept, one_by_one, 2.0, given),
        "kept": lambda: answer("sweep of 8, none dropped", all_at_once, one_by_one, 1.0, given),
    }
    for question in given.question or answers:
        answers[question]()
    engine.close()


if __name__ == "__main__":
    main()
