"""What is learnt from a group of answers and their rewards."""

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
from posttrain.techniques import grpo
from posttrain.types import Output, Sampling


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_advantages_are_standardised_within_the_group(rewards: list[float]) -> None:
    given_back = grpo.advantages(rewards)
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
    chosen = grpo.most_different(rewards, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(rewards))
    largest = max(statistics.pvariance(some) for some in itertools.combinations(rewards, len(chosen)))
    assert statistics.pvariance([rewards[i] for i in chosen]) == pytest.approx(largest)


def test_of_a_group_those_are_learnt_from_that_differ_most_and_the_worse_weigh_less(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    (group,) = asyncio.run(play(base(task), task.rows("train")[:1], task, n=8,
                                sampling=Sampling(max_tokens=3, temperature=1.0)))
    rewards = [0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.0, 0.0]

    def weights(**settings: Any) -> list[tuple[tuple[int, ...], float]]:
        training = grpo.Training(base(task), task, Run(tmp_path), grpo.Config(**settings), grpo.graded_rewards, None)
        return [(datum.tokens, max(datum.advantages, key=abs)) for datum in training._lessons(group, rewards)]

    tokens = [sampled(rollout, 1.0).tokens for rollout in group]
    everything = grpo.advantages(rewards)
    assert weights() == [(tokens[i], pytest.approx(everything[i])) for i in range(8)]
    assert weights(learn_from=2) == [(tokens[0], pytest.approx(-1, abs=1e-4)), (tokens[2], pytest.approx(1, abs=1e-4))]
    assert weights(learn_from=2, worse_weight=0.5)[0][1] == pytest.approx(-0.5, abs=1e-4)
    assert [got for got, _ in weights(worse_weight=0.0)] == [tokens[2], tokens[5]]


@pytest.mark.parametrize("max_tokens", [1, 12])
def test_answers_that_never_stop_are_told(max_tokens: int, tmp_path: Path) -> None:
    """A reward that looks at the beginning alone is earned by answers that are all cut off."""
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    task = replace(task, output=Output(max_tokens=max_tokens))
    config = grpo.Config(steps=8, rows_per_step=8, learning_rate=3e-2, evaluate_every=4)
    learnt = asyncio.run(grpo.teach(base(task), task, Run(tmp_path), config))
    assert ("never stops" in learnt.details) == (max_tokens == 1)
    if max_tokens == 1:
        assert f"cut off at {max_tokens} tokens" in learnt.details["never stops"]
