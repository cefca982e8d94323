#!/usr/bin/env python
"""Reinforcement learning on tasks of other people's, and on one with tools: is more right on rows it has not seen?

    python benchmarks/grpo_tasks.py reasoning_gym:gcd --minutes 6
    python benchmarks/grpo_tasks.py reasoning_gym:gcd --minutes 6 --shuffled       the control: has to learn nothing
    python benchmarks/grpo_tasks.py lookup --sft-steps 30 --minutes 10             several turns, with a search

The policy begins with a few worked examples in its prompt (`--shots`), or as a few steps of fine-tuning leave it
(`--sft-steps`).  Judged are 300 test rows of reasoning-gym, or a task's own, greedily, before and after; the difference
is paired, by the exact McNemar test.  Apart from what is right stands what could be read: a number where all answers
wanted are numbers, one of the answers wanted where these are few, of `lookup` a document or "not found".  Beside it the
share that want the commonest answer, which who always says that gets right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from grpo_arithmetic import Along, rewarding, setting

from posttrain import tasks
from posttrain.api import EMBEDDED
from posttrain.api.engines import opened
from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.record import Evaluation
from posttrain.evaluation.statistics import difference_of_shares
from posttrain.runs import Budget, Run
from posttrain.tasks.imported import reasoning_gym
from posttrain.techniques import few_shot, grpo, sft
from posttrain.types import Policy, Task, UserError, target_text

SIZES = {"train": 400, "dev": 60, "test": 300}
CONSTANT = {"steps": 100_000, "dev_rows": 60, "patience_without_signal": 100_000, "fooled": "warn"}
"""The minutes end it."""
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?")
FEW = 12


def loaded(name: str) -> Task:
    """The task, its answers as long as those that are wanted."""
    library, _, variant = name.partition(":")
    task = reasoning_gym.task(variant, SIZES) if library == "reasoning_gym" else tasks.load(name)
    if library != "reasoning_gym":
        return task
    longest = max(len(target_text(row.target or "")) for rows in task.splits.values() for row in rows)
    return replace(task, output=replace(task.output, max_tokens=min(48, longest // 2 + 6)), scored_by="right")


def readable(task: Task, evaluation: Evaluation) -> float:
    """The share of answers that could be read."""
    wanted = {target_text(row.target) for rows in task.splits.values() for row in rows if row.target is not None}
    if task.name == "lookup":
        read = [bool(re.search(r"\[D\d+\]|not found", attempt.answer)) for attempt in evaluation.attempts]
    elif all(NUMBER.fullmatch(text) for text in wanted):
        read = [bool(NUMBER.fullmatch(attempt.answer.strip())) for attempt in evaluation.attempts]
    elif len(wanted) <= FEW:
        read = [attempt.answer.strip() in wanted for attempt in evaluation.attempts]
    else:
        read = [bool(attempt.answer.strip()) for attempt in evaluation.attempts]
    return sum(read) / len(read)


async def begun(task: Task, policy: Policy, run: Run, given: argparse.Namespace) -> PolicyCandidate:
    """What reinforcement learning begins with."""
    start = PolicyCandidate.of("before", policy, task)
    start = replace(start, name="before")
    if given.sft_steps:
        return await sft.teach(start, task, run.child("sft", budget=Budget(steps=given.sft_steps)))
    if given.shots:
        return next(few_shot.draws(start, task, given.seed, few_shot.Config(counts=(given.shots,), draws=1)))
    return start


async def reinforced(
    start: PolicyCandidate, task: Task, folder: Path, given: argparse.Namespace, **settings: Any
) -> tuple[PolicyCandidate, dict[str, Any], str, float]:
    """What came of it, the start itself where nothing did; what is told of the training, why nothing may have been
    learnt, and how many seconds it took."""
    along = Along(folder)
    teaching = Run(along.folder, seed=given.seed, budget=Budget(given.minutes), on_progress=along)
    config = grpo.Config(**CONSTANT | settings | dict(given.set))
    try:
        taught = await grpo.teach(start, task, teaching, config, rewarding(given.shuffled, given.seed))
    except UserError as error:  # where the control is expected to end
        return start, {}, error.message, teaching.seconds
    reason = str(taught.details.get("maybe learnt nothing", ""))
    return taught, dict(taught.details["training"]), reason, teaching.seconds


async def learn(task: Task, policy: Policy, run: Run, given: argparse.Namespace) -> dict[str, Any]:
    """Judges, teaches and judges again, saying how it goes."""
    start = await begun(task, policy, run, given)
    before = await evaluate(start, task, "test", run)
    print(f"before: {before.score:.0%} right, {readable(task, before):.0%} readable (n = {before.n})", flush=True)
    taught, training, reason, seconds = await reinforced(start, task, run.folder / "grpo", given)
    after = before if taught is start else await evaluate(taught, task, "test", run)
    passed = [[bool(attempt.passed) for attempt in each.attempts] for each in (after, before)]
    apart = difference_of_shares(*passed)
    commonest = Counter(target_text(row.target or "") for row in task.rows("test")).most_common(1)[0][1]
    return {
        "before": before.score, "after": after.score, "n": before.n,
        "interval_before": list(before.interval), "interval_after": list(after.interval),
        "difference": asdict(apart), "readable_before": readable(task, before), "readable_after": readable(task, after),
        "commonest": commonest / before.n, "learnt_nothing": reason, "training": training, "seconds": seconds,
        "examples": [[attempt.answer, target_text(row.target or "")]
                     for attempt, row in list(zip(after.attempts, task.rows("test"), strict=True))[:8]],
    }  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training (default 6)")
    parser.add_argument("--shuffled", action="store_true", help="shuffle the rewards within each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shots", type=int, default=3, help="worked examples in the prompt (default 3)")
    parser.add_argument("--sft-steps", type=int, default=0, help="of fine-tuning, instead of examples")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="of grpo.Config")
    parser.add_argument("--model", default=EMBEDDED, help=f"hub name, local folder (default {EMBEDDED})")
    parser.add_argument("--folder", type=Path, help="where the run is kept (default: a new temporary folder)")
    given = parser.parse_args()
    given.folder = given.folder or Path(tempfile.mkdtemp(prefix="grpo_tasks_"))
    return given


def main() -> None:
    given = options()
    task = loaded(given.task)
    print(f"{task.name}, {given.minutes:g} min{', rewards shuffled' if given.shuffled else ''}, run {given.folder}")
    with opened() as engines:
        found = asyncio.run(learn(task, engines.policy(given.model), Run(given.folder, seed=given.seed), given))
    low, high = found["difference"]["interval"]
    print(
        f"{found['before']:.0%} -> {found['after']:.0%} right ({low:+.0%} to {high:+.0%}, "
        f"p = {found['difference']['p_value']:.2g}); readable {found['readable_before']:.0%} -> "
        f"{found['readable_after']:.0%}; commonest answer {found['commonest']:.0%}; "
        f"{found['learnt_nothing'] or 'learnt'}"
    )
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    print(json.dumps({"schema": 1, "benchmark": "grpo_tasks", **settings, **found}))


if __name__ == "__main__":
    main()
