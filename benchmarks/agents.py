#!/usr/bin/env python
"""Two agents, one of whom asks the other: what comes of training one of them by reinforcement, and both?

    python benchmarks/agents.py --minutes 5
    python benchmarks/agents.py --minutes 5 --train main --shuffled        the control: has to learn nothing

`team_sums`: a main agent asks an adder, which adds two numbers; only the last answer of an episode is rewarded.  Both
begin with as many steps of fine-tuning, each on what rows say of it.  Judged are 300 test rows, greedily, before and
after; differences are paired, by the exact McNemar test.  Beside what is right stands how often the main agent asks all
that the row's own way asks, and how often what the adder is asked is answered rightly, if it is a sum.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grpo_arithmetic import setting
from grpo_tasks import reinforced

from posttrain import tasks
from posttrain.api import EMBEDDED
from posttrain.api.engines import opened
from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.statistics import difference_of_shares, wilson_interval
from posttrain.rollouts import play
from posttrain.runs import Budget, Run
from posttrain.techniques import _each_agent, sft
from posttrain.types import Policy, Rollout, Task

ARMS = ("main", "adder", "main,adder")
SUM = re.compile(r"\s*(\d+)\s*\+\s*(\d+)\s*")
ROWS_AT_ONCE = 60


@dataclass(frozen=True)
class Judged:
    """Of test rows: which are right, in which the main agent asked what the row's own way asks, and of all sums that
    the adder was asked, which it answered rightly."""

    right: list[bool]
    asked: list[bool]
    added: list[bool]
    examples: list[str]

    def told(self) -> dict[str, Any]:
        interval = list(wilson_interval(sum(self.right), len(self.right)))
        told = {"right": _share(self.right), "interval": interval, "asked_rightly": _share(self.asked)}
        return told | {"added_rightly": _share(self.added), "sums": len(self.added)}


async def judge(candidate: PolicyCandidate, task: Task) -> Judged:
    rows = task.rows("test")
    rollouts: list[Rollout] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        rollouts += [rollout for (rollout,) in await play(candidate, rows[start : start + ROWS_AT_ONCE], task)]
    wanted = [[call["arguments"]["question"] for call in rollout.row.metadata["calls"]] for rollout in rollouts]
    added = []
    for asked in (asked for rollout in rollouts for asked in rollout.asked):
        if found := SUM.fullmatch(asked.row.text):
            added.append(asked.answer.strip() == str(int(found[1]) + int(found[2])))
    return Judged(
        [bool(rollout.score and rollout.score.passed) for rollout in rollouts],
        [[asked.row.text for asked in rollout.asked] == own for rollout, own in zip(rollouts, wanted, strict=True)],
        added,
        [_said(rollout) for rollout in rollouts[:6]],
    )


def _said(rollout: Rollout) -> str:
    asked = "; ".join(f"{asked.row.text} -> {asked.answer}" for asked in rollout.asked)
    return f"{rollout.row.text} [{asked}] {rollout.answer} (wanted {rollout.row.target})"


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else 0.0


async def begun(task: Task, policy: Policy, run: Run, steps: int) -> PolicyCandidate:
    """Both agents after so many steps of fine-tuning each."""

    async def teach(candidate: PolicyCandidate, own: Task, child: Run) -> PolicyCandidate:
        child.budget = Budget(steps=steps)
        return await sft.teach(candidate, own, child)

    return await _each_agent.teach(PolicyCandidate.of("before", policy, task), task, run.child("sft"), teach)


async def arm(
    train: str, start: PolicyCandidate, before: Judged, task: Task, run: Run, given: argparse.Namespace
) -> dict[str, Any]:
    """One arm, saying how it goes."""
    folder = run.folder / train.replace(",", "-")
    taught, training, reason, _ = await reinforced(start, task, folder, given, train=train)
    after = before if taught is start else await judge(taught, task)
    for name, member in taught.team().items() if taught is not start else ():
        if member.policy is not start.team()[name].policy:
            member.policy.drop()
    return {
        "train": train, "before": before.told(), "after": after.told(), "learnt_nothing": reason, "training": training,
        "difference": asdict(difference_of_shares(after.right, before.right)), "examples": after.examples,
    }  # fmt: skip


async def run_arms(task: Task, policy: Policy, run: Run, given: argparse.Namespace) -> list[dict[str, Any]]:
    start = await begun(task, policy, run, given.sft_steps)
    before = await judge(start, task)
    print(f"before: {json.dumps(before.told())}\n  " + "\n  ".join(before.examples), flush=True)
    found = []
    for train in given.train or ARMS:
        found.append(await arm(train, start, before, task, run, given))
        low, high = found[-1]["difference"]["interval"]
        print(
            f"{train}: {json.dumps(found[-1]['after'])} ({low:+.0%} to {high:+.0%}, "
            f"p = {found[-1]['difference']['p_value']:.2g}) {found[-1]['learnt_nothing'] or 'learnt'}\n  "
            + "\n  ".join(found[-1]["examples"]),
            flush=True,
        )
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each arm (default 5)")
    parser.add_argument("--train", action="append", metavar="AGENTS", help=f"an arm (default: {'; '.join(ARMS)})")
    parser.add_argument("--shuffled", action="store_true", help="shuffle the rewards within each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sft-steps", type=int, default=30, help="of fine-tuning, each agent (default 30)")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="of grpo.Config")
    parser.add_argument("--model", default=EMBEDDED, help=f"hub name, local folder (default {EMBEDDED})")
    parser.add_argument("--folder", type=Path, help="where the run is kept (default: a new temporary folder)")
    given = parser.parse_args()
    given.folder = given.folder or Path(tempfile.mkdtemp(prefix="agents_"))
    return given


def main() -> None:
    given = options()
    task = tasks.load("team_sums")
    print(f"{task.name}, {given.minutes:g} min{', rewards shuffled' if given.shuffled else ''}, run {given.folder}")
    with opened() as engines:
        found = asyncio.run(run_arms(task, engines.policy(given.model), Run(given.folder, seed=given.seed), given))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    print(json.dumps({"schema": 1, "benchmark": "agents", **settings, "arms": found}))


if __name__ == "__main__":
    main()
