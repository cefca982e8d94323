"""What is learnt from a group of answers and their rewards, and what is said of answers that were cut off."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import base, rewarded

from posttrain.rollouts import play, sampled
from posttrain.runs import Run
from posttrain.techniques import _cut_off, _groups, dapo, dr_grpo, grpo
from posttrain.types import Completion, Output, Rollout, Sampling, Score, UserError


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_advantages_are_standardised_within_the_group(rewards: list[float]) -> None:
    given_back = _groups.advantages(rewards)
    if len(set(rewards)) < 2:
        assert given_back == [0.0] * len(rewards)
        return
    assert sum(given_back) == pytest.approx(0, abs=1e-6)
    assert statistics.pstdev(given_back) == pytest.approx(
        statistics.pstdev(rewards) / (statistics.pstdev(rewards) + 1e-6), abs=1e-6)
    assert all((a > b) == (x > y) or a == b for a, x in zip(given_back, rewards, strict=True)
               for b, y in zip(given_back, rewards, strict=True))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=7), st.integers(1, 8))
def test_the_most_different_rewards_are_those_of_the_largest_variance(rewards: list[float], count: int) -> None:
    chosen = _groups.most_different(rewards, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(rewards))
    largest = max(statistics.pvariance(some) for some in itertools.combinations(rewards, len(chosen)))
    assert statistics.pvariance([rewards[i] for i in chosen]) == pytest.approx(largest)


def test_of_a_group_those_are_learnt_from_that_differ_most_and_the_worse_weigh_less() -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    (group,) = asyncio.run(play(base(task), task.rows("train")[:1], task, n=8,
                                sampling=Sampling(max_tokens=3, temperature=1.0)))
    rewards = [0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.0, 0.0]

    def weights(**settings: Any) -> list[tuple[tuple[int, ...], float]]:
        data = _groups.lessons(group, rewards, grpo.Config(**settings))
        return [(datum.tokens, max(datum.advantages, key=abs)) for datum in data]

    tokens = [datum.tokens for rollout in group for datum in sampled(rollout, 1.0)]
    everything = _groups.advantages(rewards)
    assert weights() == [(tokens[i], pytest.approx(everything[i])) for i in range(8)]
    assert weights(learn_from=2) == [(tokens[0], pytest.approx(-1, abs=1e-4)), (tokens[2], pytest.approx(1, abs=1e-4))]
    assert weights(learn_from=2, worse_weight=0.5)[0][1] == pytest.approx(-0.5, abs=1e-4)
    assert [got for got, _ in weights(worse_weight=0.0)] == [tokens[2], tokens[5]]


@pytest.mark.parametrize("max_tokens", [1, 12])
def test_answers_that_never_stop_are_told(max_tokens: int, tmp_path: Path) -> None:
    """A reward that looks at the beginning alone is earned by answers that are all cut off."""
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    task = replace(task, output=Output(max_tokens=max_tokens))
    config = grpo.Config(steps=8, rows_per_step=8, learning_rate=3e-2, evaluate_every=4, fooled="warn")
    learnt = asyncio.run(grpo.teach(base(task), task, Run(tmp_path), config))
    assert ("never stops" in learnt.details) == (max_tokens == 1)
    if max_tokens == 1:
        assert f"cut off at {max_tokens} tokens" in learnt.details["never stops"]


@pytest.mark.parametrize("cut_off", ["graded", "wrong"])
def test_what_became_of_answers_that_were_cut_off_is_told(cut_off: str, tmp_path: Path) -> None:
    task = replace(rewarded(lambda answer: float(answer[:1].isalpha())), output=Output(max_tokens=3))
    config = grpo.Config(steps=6, rows_per_step=8, learning_rate=3e-2, evaluate_every=3, cut_off=cut_off,
                         fooled="warn")
    told = asyncio.run(grpo.teach(base(task), task, Run(tmp_path), config)).details["cut off"]
    assert "of 384 answers sampled ran into 3 tokens" in told
    assert told.endswith(f"{_cut_off.BECAME[cut_off]}: cut_off={cut_off}")


@pytest.mark.parametrize(("shares", "told"), [
    ([0.1] * 5 + [0.5] * 20 + [1.0] * 5, "100% of the last answers sampled were cut off at 14 tokens, 10% of the first"),
    ([0.1] * 5 + [1.0] * 20 + [0.2] * 5, ""), ([0.9] * 30, ""), ([0.0, 1.0], ""), ([], ""),
])
def test_answers_that_come_to_run_into_their_limit_are_told(shares: list[float], told: str) -> None:
    records = [{"truncated": share} for share in shares] + [{"dev_score": 0.5}]
    said = _cut_off.run_on(records, 14)
    assert told in said and bool(told) == bool(said) == ("cut_off=masked" in said)


def group_of(answers: list[tuple[str, int]]) -> list[Rollout]:
    """Rollouts (why they ended, how many tokens) of one row."""
    row = rewarded(lambda _: 0.0).rows("train")[0]
    return [Rollout(row, completion=Completion("", reason, tuple(range(count)), (-1.0,) * count, (True,) * count,
                                               prompt=(9, 9)), score=Score(0.0, False)) for reason, count in answers]


def losses_of(config: Any, rewards: list[float], answers: list[tuple[str, int]], longest: int = 10) -> list[float]:
    """How much each answer's log-probability weighs in the loss that is minimised, where the ratio is 1."""
    data = _groups.lessons(group_of(answers), rewards, config)
    whole = _groups.normaliser(data, config.average, longest)
    return [sum(w * a for w, a in zip(datum.weights, datum.advantages, strict=True)) / whole for datum in data]


def test_what_the_algorithms_average_over() -> None:
    rewards, answers = [1.0, 0.0], [("stop", 2), ("stop", 6)]
    assert losses_of(grpo.Config(), rewards, answers) == pytest.approx([2 / 8, -6 / 8], rel=1e-4)
    assert losses_of(grpo.Config(average="answers"), rewards, answers) == pytest.approx([1 / 2, -1 / 2], rel=1e-4)
    # not scaled: the advantages are +-1/2; each answer over the longest possible, then over both
    assert losses_of(dr_grpo.Config(), rewards, answers) == pytest.approx([0.5 * 2 / 20, -0.5 * 6 / 20])


def test_what_becomes_of_answers_that_were_cut_off() -> None:
    rewards, answers = [1.0, 0.0, 0.0], [("stop", 4), ("length", 4), ("stop", 4)]
    graded, masked = (losses_of(config, rewards, answers) for config in (grpo.Config(), dapo.Config()))
    assert len(graded) == 3 and len(masked) == 2
    assert masked == pytest.approx([value * 3 / 2 for value in (graded[0], graded[2])]), "their group is the same"


def test_where_those_cut_off_are_wrong_their_reward_is_nothing(tmp_path: Path) -> None:
    task = rewarded(lambda _: 1.0)
    task = replace(task, output=Output(max_tokens=2))
    for cut_off, reward in (("graded", 1.0), ("wrong", 0.0)):
        config = grpo.Config(steps=1, rows_per_step=2, group_size=2, cut_off=cut_off, fooled="warn")
        with pytest.raises(UserError):
            asyncio.run(grpo.teach(base(task), task, Run(tmp_path / cut_off), config))
        rewards = [record["reward"] for record in Run(tmp_path / cut_off).metrics() if "reward" in record]
        assert rewards == [reward]
