"""Techniques one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lessons import base, reviews, score

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Budget, Run
from posttrain.techniques import _chain as chain
from posttrain.techniques import sft
from posttrain.types import UserError

FAST = sft.Config(learning_rate=1e-2, epochs=10)


@pytest.mark.parametrize(("expression", "kind", "label"), [
    ("sft", "weights", "fine-tuned on the answers"),
    ("retrieval+sft", "weights", "documents in the prompt, then fine-tuned on the answers"),
    ("sft + best_of", "weights", "fine-tuned on the answers, then majority of several answers"),
    ("base+few_shot", "prompt", "instructions only, then examples in the prompt"), ("constant", "floor", None)])
def test_what_a_chain_is_called(expression: str, kind: str, label: str | None) -> None:
    assert chain.kind(expression) == kind
    assert label is None or chain.label(expression) == label
    task = reviews()
    parts = [chain.work(part, task) for part in expression.split("+")]
    assert chain.work(expression, task).rows_trained == sum(part.rows_trained for part in parts)


@pytest.mark.parametrize("expression", ["sfft", "retrieval+sfft", "", "sft+", "+"])
def test_an_unknown_link_is_refused(expression: str) -> None:
    with pytest.raises(UserError, match="no technique called"):
        chain.links(expression)


def test_what_came_of_one_is_taught_by_the_next(tmp_path: Path) -> None:
    task = reviews()
    taught = asyncio.run(chain.teach("retrieval+sft", base(task), task, Run(tmp_path), last=FAST))
    assert isinstance(taught, PolicyCandidate)
    assert taught.name == "retrieval+sft" and taught.kind == "weights" and taught.passages == 1
    assert score(taught, task) > 0.9
    assert (tmp_path / "sft" / "metrics.jsonl").exists() and (tmp_path / "retrieval").is_dir()
    assert "mean positive" in taught.messages(task.rows("test")[0])[-1].content or (
        "mean negative" in taught.messages(task.rows("test")[0])[-1].content)


def test_a_prompt_after_training_keeps_the_weights(tmp_path: Path) -> None:
    task = reviews()
    tuned = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "sft"), last=FAST))
    voting = asyncio.run(chain.teach("best_of", tuned, task, Run(tmp_path / "votes")))
    assert isinstance(voting, PolicyCandidate) and voting.votes == 8
    assert voting.kind == "weights" and score(voting, task) > 0.8


def test_slow_links_share_the_time(tmp_path: Path) -> None:
    task, budgets = reviews(), {}
    run = Run(tmp_path, budget=Budget(minutes=2))

    class Watching(Run):
        def child(self, name: str, **given: object) -> Run:
            inner = run.child(name, **given)  # type: ignore[arg-type]
            budgets[name] = inner.budget.minutes
            return inner

    watching = Watching(tmp_path, budget=Budget(minutes=2))
    asyncio.run(chain.teach("base+few_shot+sft", base(task), task, watching, last=FAST))
    assert budgets["base"] == pytest.approx(2, abs=0.1)
    assert budgets["few_shot"] == pytest.approx(1, abs=0.1), "half of what there is"
    assert budgets["sft"] > 1.8, "and what it left goes to the next"
