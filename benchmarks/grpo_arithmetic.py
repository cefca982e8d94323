#!/usr/bin/env python
"""Reinforcement learning alone on sums and differences: does the model get better at numbers it has not seen?

    python benchmarks/grpo_arithmetic.py --digits 1 --minutes 3
    python benchmarks/grpo_arithmetic.py --digits 2 --minutes 10
    python benchmarks/grpo_arithmetic.py --digits 2 --minutes 10 --shuffled     the control: has to stay flat

Dev and test pairs of numbers are held out unordered.  A few worked examples stand in the prompt as turns of the
conversation: written into the instructions they are not imitated (measured: 0 % right, 92 % of the answers cut off).
What is shown is always the share of answers wholly right under greedy decoding; apart from it the share in which a
number could be read at all ("parsed") and that was a number and nothing else ("bare").

What is rewarded: of one-digit sums, the right number.  Of two-digit ones the base model gets 2 % of its samples right,
so in seven groups of eight all answers would score alike and teach nothing.  `--reward digits` (the default there)
pays half for the share of digits in the right place, and half for being right: three groups in four are mixed then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain import tasks
from posttrain.api import EMBEDDED
from posttrain.api.engines import opened
from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.record import Evaluation
from posttrain.graders.number import last_number
from posttrain.runs import Budget, Progress, Run
from posttrain.techniques import few_shot, grpo
from posttrain.types import Policy, Rollout, Task, UserError, target_text

TASKS = {1: "arithmetic", 2: "arithmetic:two_digit"}


def digits_right(answer: str, target: str) -> float:
    """Half the share of the target's digits that the number in the answer has in the same place, counted from the
    last; and another half when it is the target.  0 when there is no number, or more than a whole one."""
    number = last_number(answer)
    if number is None or number != number.to_integral_value() or number < 0:
        return 0.0
    said = str(int(number))
    places = zip(reversed(said), reversed(target), strict=False)
    share = sum(a == b for a, b in places) / max(len(said), len(target))
    return 0.5 * share + 0.5 * (said == target)


def rewarding(kind: str, shuffled: bool, seed: int) -> grpo.Rewards:
    """The rewards of a step's groups; shuffled, each answer gets that of any answer of its group."""
    draw = random.Random(seed)

    def rewards(groups: Sequence[list[Rollout]]) -> list[list[float]]:
        values = grpo.graded_rewards(groups)
        if kind == "digits":
            values = [[_credit(rollout) for rollout in group] for group in groups]
        return [draw.sample(group, len(group)) for group in values] if shuffled else values

    return rewards


def _credit(rollout: Rollout) -> float:
    return digits_right(rollout.answer, target_text(rollout.row.target or ""))


@dataclass(frozen=True)
class Outcome:
    """What one run came to."""

    before: Evaluation
    after: Evaluation
    curve: list[dict[str, Any]]
    seconds: float
    training: dict[str, Any]
    learnt_nothing: str = ""


async def learn(task: Task, policy: Policy, run: Run, given: argparse.Namespace) -> Outcome:
    """Judges, teaches and judges again, saying how it goes."""
    start = PolicyCandidate("before", "prompt", policy, task.instructions, task.output)
    start = next(few_shot.draws(start, task, given.seed, few_shot.Config(counts=(given.shots,), draws=1)))
    before = await evaluate(start, task, "test", run)
    print(f"before: test {shares(before)}", flush=True)
    config = grpo.Config(
        steps=100_000,  # the minutes end it
        rows_per_step=given.rows_per_step,
        group_size=given.group_size,
        updates_per_step=given.updates_per_step,
        learning_rate=given.learning_rate,
        dev_rows=100,
        patience_without_signal=100_000,
    )
    rewards = rewarding(given.reward, given.shuffled, given.seed)
    along = Along(run.folder / "grpo")
    teaching = Run(along.folder, seed=given.seed, budget=Budget(given.minutes), on_progress=along)
    taught, reason = start, ""
    try:
        taught = await grpo.teach(start, task, teaching, config, rewards)
    except UserError as error:  # where the control is expected to end
        reason = error.message
    seconds = teaching.seconds
    along.show()
    after = before if reason else await evaluate(taught, task, "test", run)
    training = {} if reason else dict(taught.details["training"])
    return Outcome(before, after, along.judged(), seconds, training, reason)


class Along:
    """Prints a line whenever grpo has judged the policy on dev."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shown = folder, 0

    def __call__(self, _: Progress) -> None:
        self.show()

    def judged(self) -> list[dict[str, Any]]:
        return [record for record in Run(self.folder).metrics() if "dev_score" in record]

    def show(self) -> None:
        """Prints what was not printed yet."""
        rewards = [record["reward"] for record in Run(self.folder).metrics() if "reward" in record][-10:]
        for record in self.judged()[self.shown :]:
            self.shown += 1
            print(
                f"{record['seconds']:5.0f} s  step {record['step']:4}: dev {record['dev_score']:4.0%} right, "
                f"{record['dev_part_parsed']:4.0%} parsed; reward of late {sum(rewards) / max(1, len(rewards)):.2f}",
                flush=True,
            )


def parts(evaluation: Evaluation) -> dict[str, float]:
    """Shares of all answers: right, with a number, a number and nothing else."""
    found: dict[str, float] = {"right": evaluation.score}
    for name, part in (("parsed", "parsed"), ("bare", "valid")):
        found[name] = sum(attempt.parts.get(part, 0.0) for attempt in evaluation.attempts) / evaluation.n
    return found


def shares(evaluation: Evaluation) -> str:
    return ", ".join(f"{value:.0%} {name}" for name, value in parts(evaluation).items()) + f" (n = {evaluation.n})"


def table(outcome: Outcome) -> str:
    """Before and after on the held-out test pairs, with 95 % intervals."""
    lines = ["| test | right | interval | parsed | bare | n |", "| --- | --- | --- | --- | --- | --- |"]
    for name, evaluation in (("before", outcome.before), ("after", outcome.after)):
        low, high = evaluation.interval
        right, parsed, bare = (f"{share:.0%}" for share in parts(evaluation).values())
        lines.append(f"| {name} | {right} | {low:.0%} to {high:.0%} | {parsed} | {bare} | {evaluation.n} |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, choices=sorted(TASKS), default=1, help="of the numbers (default 1)")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training (default 3)")
    parser.add_argument("--shuffled", action="store_true", help="shuffle the rewards within each group")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reward", choices=("exact", "digits"), help="default: exact for one digit, digits for two")
    parser.add_argument("--shots", type=int, default=4, help="worked examples in the prompt (default 4)")
    parser.add_argument("--rows-per-step", type=int, default=grpo.Config.rows_per_step)
    parser.add_argument("--group-size", type=int, default=grpo.Config.group_size)
    parser.add_argument("--updates-per-step", type=int, default=grpo.Config.updates_per_step)
    parser.add_argument("--learning-rate", type=float, default=grpo.Config.learning_rate)
    parser.add_argument("--model", default=EMBEDDED, help=f"hub name, local folder (default {EMBEDDED})")
    parser.add_argument("--folder", type=Path, help="where the run is kept (default: a new temporary folder)")
    given = parser.parse_args()
    given.reward = given.reward or ("exact" if given.digits == 1 else "digits")
    given.folder = given.folder or Path(tempfile.mkdtemp(prefix="grpo_arithmetic_"))
    return given


def main() -> None:
    given = options()
    task = tasks.load(TASKS[given.digits])
    shuffled = " shuffled" if given.shuffled else ""
    print(f"{task.name}, {given.minutes:g} min, reward {given.reward}{shuffled}, run {given.folder}")
    with opened() as engines:
        outcome = asyncio.run(learn(task, engines.policy(given.model), Run(given.folder, seed=given.seed), given))
    if outcome.learnt_nothing:
        print(outcome.learnt_nothing)
    print(table(outcome))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    result = {
        "schema": 1,
        "benchmark": "grpo_arithmetic",
        **settings,
        "seconds": round(outcome.seconds, 1),
        "before": parts(outcome.before),
        "after": parts(outcome.after),
        "n": outcome.after.n,
        "interval_after": list(outcome.after.interval),
        "learnt_nothing": outcome.learnt_nothing,
        "training": outcome.training,
        "dev": [[r["seconds"], r["step"], r["dev_score"], r["dev_part_parsed"]] for r in outcome.curve],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
