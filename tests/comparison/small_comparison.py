"""A comparison small enough to be run whole in a test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

from posttrain import graders
from posttrain.candidates.given import GivenCandidate
from posttrain.comparison.compare import Listener, compare
from posttrain.comparison.conclude import Settings
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Budget, Run
from posttrain.types import Message, Output, Policy, Row, Task

WORDS = {"positive": ("good", "great", "fine", "lovely"), "negative": ("bad", "awful", "poor", "nasty")}
ALL = ("constant", "nearest", "linear", "base", "few_shot", "sft")


def reviews(train: int = 40) -> Task:
    draw, rows = random.Random(0), []
    for i in range(train + 60):
        label = draw.choice(list(WORDS))
        words = [*draw.choices(WORDS[label], k=2), *draw.choices(("the", "a", "of", "it"), k=3)]
        rows.append(Row(str(i), (Message("user", " ".join(draw.sample(words, len(words)))),), label,
                        answer=draw.choice(list(WORDS)), slices=(label,)))
    splits = {"train": tuple(rows[:train]), "dev": tuple(rows[train:train + 20]), "test": tuple(rows[train + 20:])}
    return Task("reviews", "1", "0123456789abcdef", "Is it positive?", splits, graders.load("exact", {}),
                Output(labels=tuple(WORDS)))


class Stop(Exception):
    """The user's Ctrl-C, at a moment of our choice."""


class Hearing:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.results: list[CandidateResult] = []
        self.said: list[str] = []
        self.listener = Listener(lambda result, _: self.results.append(result), self.said.append)


def run_one(task: Task, folder: Path, candidates: tuple[str, ...] = ALL, *,
            policies: Mapping[str, Policy] | None = None, hearing: Hearing | None = None, given: bool = False,
            budget: Budget = Budget(), latency: bool = False) -> ComparisonResult:
    policies = {"toy": ToyPolicy.open_for(task)} if policies is None else policies
    systems = [GivenCandidate.of("yours", task.rows("test"))] if given else []
    return asyncio.run(compare(task, policies, Run(folder, budget=budget), Settings(candidates, latency=latency),
                               given=systems, listener=(hearing or Hearing()).listener))
