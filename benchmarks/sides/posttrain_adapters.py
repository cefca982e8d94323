"""Eight adapters on one base, by posttrain.   python posttrain_adapters.py PROMPTS.json TASK together|one_by_one"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _posttrain import ENGINE, THREADS, counting
from _worker import serve, stopwatch

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.techniques import _sweep, sft
from posttrain.types import LoRA, Sampling, Task

PROMPTS, TASK, TOGETHER = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[3] == "together"
COUNT = 8
RATES = [1e-6 * 10 ** (i / 2) for i in range(COUNT)]
PROMPT, ROWS, JUDGED, EPOCHS = 16, 8, 4, 3


def streams() -> list[Any]:
    """Adapters on all linear layers, each of which changes what is written; the same in every process."""
    torch.manual_seed(0)
    policies = [ENGINE.base().fork(f"stream-{i}", LoRA(), seed=i) for i in range(COUNT)]
    for policy in policies:  # B is zero in a fresh one
        for _, b in ENGINE.network.bank.get(policy.adapter).tensors.values():
            b.data.normal_(0, 0.01)
    return policies


POLICIES: list[Any] = []


def decode(tokens: int) -> dict[str, Any]:
    """So many tokens by each adapter, after a prompt of its own."""
    ENGINE.sampler.stop_tokens = frozenset()
    POLICIES.extend(streams() if not POLICIES else [])
    for policy in POLICIES:  # what an earlier turn wrote, which is the same, would be guessed
        ENGINE.thread.submit(partial(ENGINE.sampler.begin_afresh, policy.adapter)).result()

    async def one(i: int) -> list[int]:
        ((completion,),) = await POLICIES[i].sample([tuple(PROMPTS[i][:PROMPT])], sampling=Sampling(tokens))
        return [*completion.tokens]

    async def all_of_them() -> list[list[int]]:
        return list(await asyncio.gather(*map(one, range(COUNT)))) if TOGETHER else [await one(i) for i in range(COUNT)]

    with stopwatch() as taken, counting() as counts:
        completions = asyncio.run(all_of_them())
    return taken | counts | {"completions": completions, "trained_tokens": COUNT * tokens, "threads": THREADS}


def few_rows() -> Task:
    """The task with so many rows to learn from, and to judge by."""
    task = tasks.load(TASK)
    return replace(task, splits={**task.splits, "train": task.rows("train")[:ROWS], "dev": task.rows("dev")[:JUDGED]})


class Whole(_sweep.Sweep):
    """A sweep in which all stay to the end."""

    def _halve(self) -> None:
        self.rounds += 1


def sweep(dropping: bool) -> dict[str, Any]:
    """Eight learning rates for three epochs; side by side, the worse half may be dropped after each."""
    task = few_rows()
    start = PolicyCandidate.of("smollm2", ENGINE.base(), task)
    configs = {f"{rate:.1e}": sft.Config(learning_rate=rate, epochs=EPOCHS, patience=EPOCHS) for rate in RATES}

    async def one_after_another(run: Run) -> int:
        learnt_from = 0
        for name, config in configs.items():
            training = sft.start(start, task, run.child(name), config)
            await training.begin()
            while await training.round():
                pass
            training.policy.drop()
            learnt_from += training.trained_tokens
        return learnt_from

    async def side_by_side(run: Run) -> int:
        begun = {name: sft.start(start, task, run.child(name), config) for name, config in configs.items()}
        swept = (_sweep.Sweep if dropping else Whole)(begun, run)
        await swept.run_rounds()
        swept.drop_all_but(())
        return sum(training.trained_tokens for training in begun.values())

    with tempfile.TemporaryDirectory() as folder, stopwatch() as taken, counting() as counts:
        learnt_from = asyncio.run((side_by_side if TOGETHER else one_after_another)(Run(Path(folder))))
    return taken | counts | {"trained_tokens": learnt_from, "threads": THREADS}


serve({"decode": decode, "sweep": sweep})
