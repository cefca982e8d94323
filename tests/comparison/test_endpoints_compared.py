"""A hosted endpoint among the candidates: what it stands for, and how long it may take."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from small_comparison import Hearing, reviews, run_one

from posttrain.comparison.compare import compare, read
from posttrain.comparison.conclude import Settings
from posttrain.comparison.estimate import CLOSING_SECONDS
from posttrain.comparison.results import ComparisonResult
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Budget, Run
from posttrain.techniques import _chain as chain
from posttrain.types import Task


def test_an_endpoint_is_what_everything_is_compared_with(tmp_path: Path) -> None:
    task = reviews()
    policies = {"toy": ToyPolicy.open_for(task), "chat:there": endpoint_for(task)}
    hearing = Hearing()
    result = run_one(task, tmp_path / "a", ("base", "few_shot"), policies=policies, hearing=hearing)
    assert result.reference == result.yours == "base@chat:there"
    assert run_one(task, tmp_path / "b", ("base", "few_shot"), policies=policies, given=True).reference == "yours"
    alone = {"chat:there": endpoint_for(task)}
    kept = run_one(task, tmp_path / "c", ("constant", "base"), policies=alone, hearing=hearing)
    assert (kept.yours, kept.reference) == ("base", "base") and read(tmp_path / "c").yours == "base"
    assert not any("stands for" in said for said in hearing.said)


def test_without_base_the_first_prompt_stands_for_the_endpoint_and_that_is_said(tmp_path: Path) -> None:
    task, hearing = reviews(), Hearing()
    policies = {"chat:there": endpoint_for(task)}
    result = run_one(task, tmp_path, ("constant", "knn_few_shot", "best_of"), policies=policies, hearing=hearing)
    assert result.yours == result.reference == "knn_few_shot"
    note = "knn_few_shot stands for the system you run: base was not compared; add it to --candidates"
    assert note in result.notes and note in hearing.said


def test_an_endpoint_on_trial_is_not_yours(tmp_path: Path) -> None:
    task = reviews()
    policies = {"chat:new": endpoint_for(task), "chat:old": endpoint_for(task)}

    def compared(*on_trial: str) -> ComparisonResult:
        settings = Settings(("base", "knn_few_shot"), latency=False, on_trial=on_trial)
        return asyncio.run(compare(task, policies, Run(tmp_path), settings))

    assert compared("chat:new").yours == "base@chat:old"
    assert compared("chat:new", "chat:old").yours is None


def endpoint_for(task: Task) -> ToyPolicy:
    """A toy that is asked as if it were somebody else's server."""
    endpoint = ToyPolicy.open_for(task)
    endpoint.remote = True  # type: ignore[misc]
    return endpoint


def test_an_endpoint_keeps_to_the_minutes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no forecast of it: each candidate may take what is left, and once that is nothing none begins."""
    task, hearing, now = reviews(), Hearing(), [1000.0]
    monkeypatch.setattr("posttrain.runs.time.monotonic", lambda: now[0])
    teach, given = chain.teach, []

    async def slow(expression: str, start: Any, task: Task, run: Run, **settings: Any) -> Any:
        given.append(run.budget.minutes and run.budget.minutes * 60)
        now[0] += 40
        return await teach(expression, start, task, run, **settings)

    monkeypatch.setattr(chain, "teach", slow)
    budget = Budget((60 + CLOSING_SECONDS) / 60)
    candidates = ("base", "few_shot", "knn_few_shot", "prompt_search")
    result = run_one(task, tmp_path, candidates, policies={"chat:there": endpoint_for(task)}, hearing=hearing, budget=budget)
    assert given == [pytest.approx(60), pytest.approx(20)]
    assert [found.name for found in result.candidates] == ["base", "few_shot"]
    for name in ("knn_few_shot", "prompt_search"):
        assert f"{name} left out: no time was left; give more --minutes, or fewer --candidates" in result.notes
    assert result.notes[-1] in hearing.said
    again = run_one(task, tmp_path, candidates[:2], policies={"chat:there": endpoint_for(task)}, budget=Budget(CLOSING_SECONDS / 60))
    assert [found.name for found in again.candidates] == ["base", "few_shot"], "what is finished takes no time"
