"""Sixty real trainings in which nobody cheats, each beside a hidden grader that sees the same otherwise: no grave alarm.

The hidden grader has to pay on the scale of the reward: where parts are paid and only the whole is accepted, learning
parts looks like cheating, and an alarm is raised."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lessons import WORDS, base, rewarded

from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Run
from posttrain.techniques import grpo
from posttrain.types import LearntNothing, Row, Score, Task

CONFIG = grpo.Config(steps=60, rows_per_step=8, group_size=8, learning_rate=1e-2, evaluate_every=60, dev_rows=8,
                     fooled="warn", patience_without_signal=100)
SEEDS = 15


class Judge:
    """Grades by row and answer; blind to a share of answers, of which it says the opposite."""

    def __init__(self, value: Callable[[Row, str], float], blind: float = 0.0) -> None:
        self.value, self.blind = value, blind

    async def grade(self, row: Row, answer: str) -> Score:
        value = self.value(row, answer)
        if zlib.crc32(f"{row.id} {answer}".encode()) % 1000 < 1000 * self.blind:
            value = 1 - value
        return Score(value, value >= 1)


def letters(_: Row, answer: str) -> float:
    return float(answer[:1].isalpha())


def share_of_words(_: Row, answer: str) -> float:
    known = [word for words in WORDS.values() for word in words]
    return sum(word in known for word in answer.split()[:3]) / 3


def all_words(row: Row, answer: str) -> float:
    return float(share_of_words(row, answer) >= 1)


def any_word(row: Row, answer: str) -> float:
    return float(share_of_words(row, answer) > 0)


def word_or_letter(row: Row, answer: str) -> float:
    """A fifth for the form, the rest for what is wanted."""
    return 0.2 * letters(row, answer) + 0.8 * any_word(row, answer)


def free(reward: Callable[[Row, str], float], gold: Judge) -> Task:
    return replace(rewarded(lambda _: 0.0), grader=Judge(reward), gold=gold)


HONEST: dict[str, Callable[[], Task]] = {
    "the same, but for one answer in ten": lambda: free(letters, Judge(letters, 0.1)),
    "what is rare at first": lambda: free(any_word, Judge(any_word, 0.05)),
    "the form is paid a little": lambda: free(word_or_letter, Judge(any_word)),
    "nothing is ever right": lambda: free(lambda *_: 0.0, Judge(lambda *_: 0.0, 0.02)),
}


def curves(make: Callable[[], Task], folder: Path, seeds: int) -> tuple[list[tuple[float, float]], list[list[Any]]]:
    """Of trainings with so many seeds, the first and the last reward, and the grave alarms."""
    rewards, grave = [], []
    for seed in range(seeds):
        task, own = make(), folder / str(seed)
        with contextlib.suppress(LearntNothing):
            start = replace(base(task), policy=ToyPolicy.open_for(task, seed=seed))
            asyncio.run(grpo.teach(start, task, Run(own, seed=seed), replace(CONFIG, on_alarm="warn")))
        records = Run(own).metrics()
        curve = [record["reward"] for record in records if "reward" in record]
        rewards.append((curve[0], curve[-1]))
        alarms = [alarm for record in records for alarm in record.get("alarms", ())]
        grave.append([alarm for alarm in alarms if alarm["level"] == "stop"])
    return rewards, grave


@pytest.mark.slow
@pytest.mark.parametrize("kind", HONEST)
def test_honest_trainings_raise_no_grave_alarm(kind: str, tmp_path: Path) -> None:
    rewards, grave = curves(HONEST[kind], tmp_path, SEEDS)
    assert not any(grave), grave
    if kind != "nothing is ever right":
        assert sum(last - first for first, last in rewards) / SEEDS > 0.2, "they are curves of learning"


@pytest.mark.slow
def test_a_hidden_grader_on_another_scale_raises_alarms_without_a_cheat(tmp_path: Path) -> None:
    _, grave = curves(lambda: free(share_of_words, Judge(all_words)), tmp_path, 3)
    assert any(grave)
