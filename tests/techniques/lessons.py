"""Small tasks that a toy can learn in a second, for tests of techniques."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain import graders
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.toy import ToyPolicy
from posttrain.environments._agents import MAIN
from posttrain.runs import Run
from posttrain.techniques._team import Team
from posttrain.types import Candidate, Document, Message, Output, Policy, Row, Score, Task

WORDS = {"positive": ("good", "great", "fine", "lovely"), "negative": ("bad", "awful", "poor", "nasty")}
FILLERS = ("the", "a", "of", "it")
INSTRUCTIONS = "Is the review positive or negative?"
DOCUMENTS = (Document("d1", "Praise", "good great fine lovely mean positive"),
             Document("d2", "Blame", "bad awful poor nasty mean negative"))


def reviews(train: int = 40, dev: int = 16, test: int = 16) -> Task:
    """Labels that follow from the words."""
    draw, rows = random.Random(0), []
    for i in range(train + dev + test):
        label = draw.choice(list(WORDS))
        words = [*draw.choices(WORDS[label], k=2), *draw.choices(FILLERS, k=3)]
        text = " ".join(draw.sample(words, len(words)))
        other = next(name for name in WORDS if name != label)
        rows.append(Row(str(i), (Message("user", text),), label, rejected=other))
    splits = {"train": tuple(rows[:train]), "dev": tuple(rows[train:train + dev]), "test": tuple(rows[train + dev:])}
    return Task("reviews", "1", "hash", INSTRUCTIONS, splits, graders.load("exact", {}), Output(labels=tuple(WORDS)),
                documents=DOCUMENTS)


def only(task: Task, count: int) -> Task:
    """The task with its first train rows alone, for training and for judging."""
    rows = task.rows("train")[:count]
    return replace(task, splits={"train": rows, "dev": rows, "test": rows})


def without(task: Task, *fields: str) -> Task:
    """The task with some fields of its rows left out."""
    blank: dict[str, Any] = dict.fromkeys(fields)
    return replace(task, splits={name: tuple(replace(row, **blank) for row in rows)
                                 for name, rows in task.splits.items()})


def base(task: Task) -> PolicyCandidate:
    return PolicyCandidate("toy", "prompt", ToyPolicy.open_for(task), task.instructions, task.output)


def teach(module: Any, start: PolicyCandidate, task: Task, folder: Path, config: Any, *more: Any) -> PolicyCandidate:
    candidate: PolicyCandidate = asyncio.run(module.teach(start, task, Run(folder), config, *more))
    return candidate


def alone(learner: PolicyCandidate, reference: Policy | None = None) -> tuple[PolicyCandidate, Team, dict[str, Policy]]:
    """Who is trained by itself, as grpo.Training is told of it, and what a penalty is to."""
    return learner, Team({MAIN: learner.policy}), {MAIN: reference} if reference else {}


def answers(candidate: Candidate, rows: Sequence[Row]) -> list[str]:
    return [group[0].answer for group in asyncio.run(candidate.attempt(rows))]


def score(candidate: Candidate, task: Task, split: str = "test") -> float:
    rows = task.rows(split)
    return sum(answer == row.target for answer, row in zip(answers(candidate, rows), rows, strict=True)) / len(rows)


@dataclass(frozen=True)
class Rewarding:
    """A grader that is any function of the answer."""

    value: Callable[[str], float]

    async def grade(self, row: Row, answer: str) -> Score:  # noqa: ARG002
        return Score(self.value(answer), self.value(answer) >= 1)


def rewarded(value: Callable[[str], float]) -> Task:
    """Free answers of at most three tokens, rewarded by a function of their text."""
    task = without(reviews(24, 8, 8), "target", "rejected")
    return replace(task, grader=Rewarding(value), output=Output(max_tokens=3))
