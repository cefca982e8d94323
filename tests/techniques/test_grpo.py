"""grpo raises the reward, counts what gives no signal, goes back when led astray, and says so when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from lessons import alone, answers, base, reviews, rewarded, teach

from posttrain.rollouts import taught as lesson
from posttrain.runs import Budget, Run
from posttrain.techniques import _audited, _groups, grpo
from posttrain.types import Rollout, RolloutError, UserError

QUICK = grpo.Config(steps=24, rows_per_step=8, group_size=8, learning_rate=3e-2, evaluate_every=8, dev_rows=8,
                    fooled="warn")


def rewards_of(folder: Path) -> list[float]:
    return [record["reward"] for record in Run(folder).metrics() if "reward" in record]


def test_grpo_raises_a_trivial_reward(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    start = base(task)
    learnt = teach(grpo, start, task, tmp_path, replace(QUICK, patience_without_signal=100))
    rewards = rewards_of(tmp_path)
    assert statistics.fmean(rewards[:3]) < 0.5 and statistics.fmean(rewards[-3:]) > 0.9
    assert all(answer[:1].isalpha() for answer in answers(learnt, task.rows("test")))
    training = learnt.details["training"]
    assert training["updates"] > 0 and training["dev_score"] == 1.0 and training["steps"] == 24
    assert "maybe learnt nothing" not in learnt.details
    few = replace(QUICK, dev_rows=1)
    learnt = teach(grpo, base(task), task, tmp_path / "few", replace(few, patience_without_signal=100))
    assert "may be chance" in learnt.details["maybe learnt nothing"], "one row on dev shows nothing"


def test_grpo_learns_from_a_step_in_parts_and_every_group_once(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    for parts in (1, 3):
        config = replace(QUICK, steps=1, updates_per_step=parts, evaluate_every=100)
        with contextlib.suppress(UserError):  # one step may be too little for better dev rows
            teach(grpo, base(task), task, tmp_path / str(parts), config)
    (whole,), (parted,) = (
        [record for record in Run(tmp_path / parts).metrics() if "trained_tokens" in record] for parts in "13")
    assert whole["reward"] == parted["reward"], "what is sampled is the same"
    assert 3 * parted["trained_tokens"] == pytest.approx(whole["trained_tokens"])


def test_grpo_penalises_leaving_the_reference_in_groups_that_agree_too(tmp_path: Path) -> None:
    def of_one_group(groups: Sequence[list[Rollout]]) -> list[list[float]]:
        return [[float(i == number == 0) for i in range(len(group))] for number, group in enumerate(groups)]

    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    trained = []
    for kl in (0.0, 0.1):
        config = replace(QUICK, steps=1, kl=kl, evaluate_every=100)
        with contextlib.suppress(UserError):  # one step may be too little for better dev rows
            teach(grpo, base(task), task, tmp_path / str(kl), config, of_one_group)
        (record,) = (record for record in Run(tmp_path / str(kl)).metrics() if "trained_tokens" in record)
        sampled = record["completion_tokens"] * QUICK.rows_per_step * QUICK.group_size
        trained.append(record["trained_tokens"] / sampled)
    assert trained[0] < 0.5 and trained[1] == pytest.approx(1.0)


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_the_penalty_is_for_steps_without_signal_too_and_divides_no_signal(tmp_path: Path, kl: float) -> None:
    """A step is learnt from in as many parts as have a group that differs."""
    steps = []

    def of_the_first_step(groups: Sequence[list[Rollout]]) -> list[list[float]]:
        steps.append(len(groups))
        return [[float(len(steps) == 1 and i == number == 0) for i in range(len(group))]
                for number, group in enumerate(groups)]

    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    config = replace(QUICK, steps=3, kl=kl, evaluate_every=100, updates_per_step=3)
    policy = base(task).policy.fork("learner")
    learner, team, references = alone(replace(base(task), policy=policy), policy.frozen() if kl else None)
    training = grpo.Training(learner, team, task, Run(tmp_path), config, of_the_first_step, references)
    with contextlib.suppress(UserError):
        asyncio.run(training.run_steps())
    assert len(steps) == 3 and training.seen.updates == (3 if kl else 1)
    assert training.seen.skipped_groups == training.seen.groups - 1


def test_grpo_that_has_learnt_all_there_is_ends_well(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    learnt = teach(grpo, base(task), task, tmp_path, replace(QUICK, steps=60, patience_without_signal=3))
    assert learnt.details["training"]["dev_score"] == 1.0
    assert len(rewards_of(tmp_path)) < 60, "and does not go on for nothing"


def test_grpo_learns_nothing_from_shuffled_rewards(tmp_path: Path) -> None:
    draw = random.Random(0)

    def shuffled(groups: Sequence[list[Rollout]]) -> list[list[float]]:
        return [draw.sample(values, len(values)) for values in grpo.graded_rewards(groups)]

    task = rewarded(lambda answer: float(answer[:1] in "abcdefghijklm"))
    with contextlib.suppress(UserError):  # unless a step is better than the beginning by chance
        teach(grpo, base(task), task, tmp_path, replace(QUICK, learning_rate=1e-3), shuffled)
    rewards = rewards_of(tmp_path)
    assert len(rewards) == QUICK.steps
    assert statistics.fmean(rewards[:6]) > 0.02
    assert statistics.fmean(rewards[-6:]) == pytest.approx(statistics.fmean(rewards[:6]), abs=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_grpo_without_variance_says_so(value: float, tmp_path: Path) -> None:
    task = rewarded(lambda _: value)
    with pytest.raises(UserError, match="differ in reward") as caught:
        teach(grpo, base(task), task, tmp_path, replace(QUICK, patience_without_signal=2))
    assert ("nothing is left to gain" in caught.value.remedy) == (value == 1.0)
    assert len(rewards_of(tmp_path)) == 1, "the second batch without signal ends it"


def test_grpo_does_not_give_back_what_it_began_with(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))

    def contrary(groups: Sequence[list[Rollout]]) -> list[list[float]]:
        return [[1 - value for value in values] for values in grpo.graded_rewards(groups)]

    with pytest.raises(UserError, match="learnt nothing: after no step was the score on dev better") as caught:
        teach(grpo, base(task), task, tmp_path / "contrary", replace(QUICK, learning_rate=1e-1), contrary)
    assert caught.value.place == str(tmp_path / "contrary") and "rollouts/" in caught.value.remedy
    with pytest.raises(UserError, match="learnt nothing"):
        teach(grpo, base(task), task, tmp_path / "still", replace(QUICK, learning_rate=0.0))
    with pytest.raises(UserError, match="before its first step") as early:
        teach(grpo, base(task), task, tmp_path / "early", replace(QUICK, steps=0))
    assert "--minutes" in early.value.remedy


def test_grpo_keeps_graded_rollouts(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    learnt = teach(grpo, base(task), task, tmp_path, replace(QUICK, rollouts_every=10, patience_without_signal=100))
    assert [path.name for path in sorted((tmp_path / "rollouts").iterdir())] == [
        f"step-{step:05}.jsonl" for step in (0, 10, 20)]
    asked = {row.id: learnt.messages(row)[-1].content for row in task.rows("train")}
    means = {record["step"]: record["reward"] for record in Run(tmp_path).metrics() if "reward" in record}
    for step in (0, 10, 20):
        text = (tmp_path / "rollouts" / f"step-{step:05}.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert len(lines) == QUICK.rows_per_step * QUICK.group_size
        for line in lines:
            assert line["step"] == step and line["schema"] == 1 and line["stop_reason"] in ("stop", "length")
            assert line["prompt"] == f"system: {task.instructions}\nuser: {asked[line['row']]}"
            assert line["reward"] == float(line["completion"][:1].isalpha()) == float(line["passed"])
        assert statistics.fmean(line["reward"] for line in lines) == pytest.approx(means[step])


def test_failed_rollouts_are_counted_and_kept(tmp_path: Path) -> None:
    def value(answer: str) -> float:
        if not answer[:1].isascii() or answer[:1] in "xyz":
            raise RolloutError("grader", "cannot read this")
        return float(answer[:1].isalpha())

    task = rewarded(value)
    teach(grpo, base(task), task, tmp_path, replace(QUICK, rollouts_every=1))
    failed = [record["failed"] for record in Run(tmp_path).metrics() if "failed" in record]
    assert 0 < failed[0] < 1
    lines = [json.loads(line) for line in (tmp_path / "rollouts" / "step-00000.jsonl").read_text().splitlines()]
    broken = [line for line in lines if line["reward"] is None]
    assert len(broken) == pytest.approx(failed[0] * len(lines))
    assert all(line["explanation"] == "grader: cannot read this" and line["passed"] is None for line in broken)


def test_grpo_ends_when_every_rollout_fails(tmp_path: Path) -> None:
    def broken(_: str) -> float:
        raise RolloutError("grader", "no such file")

    with pytest.raises(UserError, match="every rollout of step 0 failed: grader: no such file"):
        teach(grpo, base(rewarded(broken)), rewarded(broken), tmp_path, QUICK)


def test_grpo_goes_back_to_its_best_step(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    learnt = teach(grpo, base(task), task, tmp_path, replace(QUICK, steps=16, evaluate_every=4))
    judged = {record["step"]: (record["dev_score"], record["dev_value"]) for record in Run(tmp_path).metrics()
              if "dev_score" in record}
    assert sorted(judged) == [0, 4, 8, 12, 16]
    kept = learnt.details["training"]["step_kept"]
    assert judged[kept] == max(judged.values())


def test_grpo_goes_back_from_a_policy_that_is_plainly_worse_and_learns_slower_then(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    start = base(task)
    learnt = teach(grpo, start, task, tmp_path / "first", QUICK)
    asyncio.run(start.policy.fork("untaught").save(tmp_path / "untaught"))
    learner = replace(learnt, policy=learnt.policy.fork("second"))
    learner, team, _ = alone(learner)
    training = grpo.Training(learner, team, task, Run(tmp_path / "second"), QUICK, grpo.graded_rewards, {})
    rows = task.rows("test")

    async def judge_and_lose_everything_twice() -> None:
        await training._judge()
        for training.seen.step in (8, 16):
            await learner.policy.load(tmp_path / "untaught")
            await training._judge()

    asyncio.run(judge_and_lose_everything_twice())
    assert answers(learner, rows) == answers(learnt, rows) != answers(start, rows)
    judged = [(record["step"], record.get("went_back_to")) for record in Run(tmp_path / "second").metrics()]
    assert judged == [(0, None), (8, 0), (16, 0)]
    training.seen.step, training.seen.groups = 0, 1
    assert training.share_of_rate() == 1 / 4
    with pytest.raises(UserError, match="so much worse that training went back there 2×"):
        training._refuse_if_nothing_was_learnt()


def test_a_penalty_keeps_grpo_near_its_beginning(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1] in "abcdefghijklm"))
    start, distances = base(task), {}
    for kl in (0.0, 20.0):
        folder = tmp_path / str(kl)
        config = replace(QUICK, kl=kl, learning_rate=3e-3, evaluate_every=100)
        learner = replace(start, policy=start.policy.fork("learner"))
        learner, team, references = alone(learner, start.policy.frozen() if kl else None)
        training = grpo.Training(learner, team, task, Run(folder), config, grpo.graded_rewards, references)
        with contextlib.suppress(UserError):  # held back, it may be no better on dev
            asyncio.run(training.run_steps())
        data = [lesson(start, row, "good") for row in task.rows("train")]
        moved, was = (asyncio.run(policy.logprobs(data)) for policy in (learner.policy, start.policy))
        distances[kl] = sum(abs(a - b) for one, other in zip(moved, was, strict=True)
                            for a, b in zip(one, other, strict=True))
    assert distances[20.0] < 0.6 * distances[0.0]


def test_the_rate_of_grpo_falls_with_the_steps_or_the_time(tmp_path: Path) -> None:
    def rates(budget: Budget) -> list[float]:
        run = Run(tmp_path, budget=budget)
        learner, team, _ = alone(base(task))
        training = grpo.Training(learner, team, task, run, replace(QUICK, steps=10), grpo.graded_rewards, {})
        found = []
        for training.seen.step in (0, 4, 8):
            run.started -= 30
            found.append(training.share_of_rate())
        return found

    task = reviews(10, 4, 4)
    assert rates(Budget()) == pytest.approx([1, 0.64, 0.28])
    assert rates(Budget(steps=8)) == pytest.approx([1, 0.55, 0.1])
    assert rates(Budget(minutes=2)) == pytest.approx([0.775, 0.55, 0.28], abs=0.01)


def test_advantages_by_hand() -> None:
    assert _groups.advantages([1.0, 0.0, 0.0, 1.0]) == pytest.approx([1, -1, -1, 1], abs=1e-5)
    assert _groups.advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.7320, -0.5773, -0.5773, -0.5773], abs=1e-3)


def test_a_grader_that_pays_for_nothing_is_not_trained_on(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    with pytest.raises(UserError, match="does not do the task earns") as caught:
        teach(grpo, base(task), task, tmp_path / "stops", replace(QUICK, fooled="stop"))
    assert "banana" in caught.value.message and "fooled=warn" in caught.value.remedy
    assert not (tmp_path / "stops" / "metrics.jsonl").exists()
    learnt = teach(grpo, base(task), task, tmp_path / "warns", replace(QUICK, patience_without_signal=100))
    assert learnt.details["audit"].startswith("FOOLED empty phrase")
    record = json.loads((tmp_path / "warns" / "audit.json").read_text())
    assert record["told"] == learnt.details["audit"] and any(each["word"] == "FOOLED" for each in record["verdicts"])


def test_a_grader_that_is_dear_is_not_asked_a_thousand_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_audited, "SLOW_SECONDS", -1.0)
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    learnt = teach(grpo, base(task), task, tmp_path, replace(QUICK, fooled="stop", patience_without_signal=100))
    assert learnt.details["audit"].startswith("none: the grader takes ") and not (tmp_path / "audit.json").exists()
