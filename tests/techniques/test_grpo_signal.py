"""Which groups give signal, how often rows are drawn for them, and how many of them a step learns from."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lessons import alone, base, rewarded

from posttrain.engines.toy import ToyPolicy
from posttrain.rollouts import play
from posttrain.runs import Run
from posttrain.techniques import _chain as chain
from posttrain.techniques import dapo, grpo
from posttrain.types import Datum, LearntNothing, Policy, Rollout, Row, Score, Task, UserError

ROWS, ANSWERS = 4, 4
QUICK = dapo.Config(steps=1, rows_per_step=ROWS, group_size=ANSWERS, most_draws=1, dev_rows=1)


class Draws:
    """Draws of `mixed` groups, the others all alike, and of groups that are `cut_off`: a set of numbers for each draw,
    the last one for all that come after."""

    def __init__(self, mixed: Sequence[set[int]], cut_off: Sequence[set[int]] = (set(),)) -> None:
        self.mixed, self.cut_off = mixed, cut_off
        self.played: list[list[Row]] = []

    async def play(self, *arguments: Any, n: int = 1, **settings: Any) -> list[list[Rollout]]:
        groups = await play(*arguments, n=n, **settings)
        if n == 1:  # judging
            return groups
        cut_off = self.cut_off[min(len(self.played), len(self.cut_off) - 1)]
        self.played.append([group[0].row for group in groups])
        return [[ended(rollout, "length" if number in cut_off else "stop") for rollout in group]
                for number, group in enumerate(groups)]

    def rewards(self, groups: Sequence[list[Rollout]]) -> list[list[float]]:
        mixed = self.mixed[min(len(self.played), len(self.mixed)) - 1]
        return [[float(number in mixed and i % 2) for i in range(len(group))] for number, group in enumerate(groups)]

    def ids(self, *places: tuple[int, int]) -> list[str]:
        """Of rows (which draw, which of its groups)."""
        return [self.played[draw][number].id for draw, number in places]


def ended(rollout: Rollout, how: Any) -> Rollout:
    assert rollout.completion
    return replace(rollout, completion=replace(rollout.completion, stop_reason=how))


def train(draws: Draws, config: grpo.Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> grpo.Training:
    """A training whose answers and rewards are those of `draws`, as it is at its end."""
    monkeypatch.setattr(grpo, "play", draws.play)
    task = rewarded(lambda _: 0.0)
    start = base(task)
    policy: Policy = start.policy.fork("learner")
    learner, team, references = alone(replace(start, policy=policy), start.policy.frozen() if config.kl else None)
    training = grpo.Training(learner, team, task, Run(folder), config, draws.rewards, references)
    with contextlib.suppress(LearntNothing):  # on a dev score that is always 0
        asyncio.run(training.run_steps())
    return training


def learnt_groups(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """To be filled with the rows of each update, in order."""
    found, plain = list[list[str]](), ToyPolicy.forward_backward

    async def recorded(self: ToyPolicy, data: Sequence[Datum], *arguments: Any, **settings: Any) -> Any:
        found.append(list(dict.fromkeys(datum.group for datum in data)))
        return await plain(self, data, *arguments, **settings)

    monkeypatch.setattr(ToyPolicy, "forward_backward", recorded)
    return found


def test_a_step_has_no_more_parts_than_groups_that_are_left_when_those_cut_off_are_masked(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that differ in reward but were wholly cut off would leave parts empty."""
    learnt = learnt_groups(monkeypatch)
    draws = Draws([{0, 1, 2, 3}], cut_off=[{0, 2, 3}])
    training = train(draws, replace(QUICK, updates_per_step=3), tmp_path, monkeypatch)
    assert learnt == [draws.ids((0, 1))] and training.seen.updates == 1
    assert training.seen.groups == 4 and training.seen.skipped_groups == 3 and training.seen.without_signal == 0
    (share,) = (record["groups_with_signal"] for record in Run(tmp_path).metrics() if "reward" in record)
    assert share == 1 / 4
    assert training.summary()["groups_without_signal"] == 3


def test_with_a_penalty_parts_have_signal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = learnt_groups(monkeypatch)
    draws = Draws([{1, 2, 3}], cut_off=[{3}])
    train(draws, replace(QUICK, updates_per_step=3, kl=0.1), tmp_path, monkeypatch)
    assert learnt == [draws.ids((0, 1), (0, 0)), draws.ids((0, 2))]


def test_a_training_whose_answers_are_all_masked_ends_and_says_why(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, steps=20, patience_without_signal=2)
    with pytest.raises(UserError, match=r"2 batches in a row .* in reward, those that") as caught:
        train(Draws([{0, 1, 2, 3}], cut_off=[{0, 1, 2, 3}]), config, tmp_path, monkeypatch)
    assert "every answer was cut off at 3 tokens" in caught.value.remedy and "max_tokens" in caught.value.remedy


ALL = {0, 1, 2, 3}


@pytest.mark.parametrize(("draws", "most_draws", "played"), [
    (Draws([set(), set(), ALL]), 1, 4),
    (Draws([set(), set(), ALL]), 5, 12),
    (Draws([ALL], cut_off=[ALL, ALL, set()]), 5, 12),
    (Draws([ALL], cut_off=[{0, 1}]), 5, 8),
], ids=["once", "alike", "masked", "half masked"])
def test_rows_are_drawn_again_until_enough_groups_have_signal(
        draws: Draws, most_draws: int, played: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = train(draws, replace(QUICK, most_draws=most_draws), tmp_path, monkeypatch)
    assert training.seen.groups == len({row.id for rows in draws.played for row in rows}) == played


def test_of_the_groups_with_signal_the_first_are_learnt_from_as_many_as_a_step_has_rows(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = learnt_groups(monkeypatch)
    draws = Draws([{0, 1, 3}, ALL])
    training = train(draws, replace(QUICK, most_draws=3), tmp_path, monkeypatch)
    assert learnt == [draws.ids((0, 0), (0, 1), (0, 3), (1, 0))]
    assert training.seen.groups == 8 and training.seen.skipped_groups == 1, "all that was sampled is counted"
    written = (tmp_path / "rollouts" / "step-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in written] == [
        row.id for rows in draws.played for row in rows for _ in range(ANSWERS)], "and written down"


def test_with_a_penalty_groups_without_signal_fill_what_is_left_of_a_step(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = learnt_groups(monkeypatch)
    draws = Draws([{2}, {1}, set()])
    train(draws, replace(QUICK, most_draws=3, kl=0.1), tmp_path, monkeypatch)
    assert learnt == [draws.ids((0, 2), (1, 1), (0, 0), (0, 1))]


class Counting:
    """A grader whose every answer is wrong."""

    graded = 0

    async def grade(self, row: Row, answer: str) -> Score:  # noqa: ARG002
        self.graded += 1
        return Score(0.0, False)


def test_what_is_foretold_is_the_most_that_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there never is signal every step draws as often as it may."""
    async def trusted(*_: object) -> str:
        return ""

    monkeypatch.setattr(grpo, "audited", trusted)  # which grades too, but samples nothing
    grader = Counting()
    task: Task = replace(rewarded(lambda _: 0.0), grader=grader)
    config = replace(QUICK, steps=3, most_draws=3, evaluate_every=2, dev_rows=8, patience_without_signal=100)
    with pytest.raises(LearntNothing):
        asyncio.run(dapo.teach(base(task), task, Run(tmp_path), config))
    assert dapo.work(task, config).rows_answered == grader.graded == 3 * 3 * ROWS * ANSWERS + 3 * 8
    assert dapo.work(task, config).rows_trained == 3 * ROWS * ANSWERS
    assert chain.work("dapo", task) == grpo.work(task, dapo.Config()), "a comparison asks for its own defaults"
