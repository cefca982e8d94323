"""Prompts that are tried: templates, demonstrations and formats, at a cost that is known before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from lessons import INSTRUCTIONS, base, reviews

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.techniques import prompt_search
from posttrain.types import OnText, Output, Rollout, Row, Sampling


def by_name(config: prompt_search.Config = prompt_search.Config()) -> dict[str, PolicyCandidate]:
    task = reviews()
    found = prompt_search.prompts(base(task), task, 0, config)
    return {str(trial.details["prompt"]): trial for trial in found}


def test_every_prompt_is_another_conversation() -> None:
    row, trials = reviews().rows("test")[0], by_name()
    assert len({trial.messages(row) for trial in trials.values()}) == len(trials) == 11
    assert len(prompt_search.combinations(prompt_search.Config())) == 11, "10 dev rows each: what a search may cost"


def test_the_formats_show_the_same_examples_in_other_places() -> None:
    row, trials = reviews().rows("test")[0], by_name()
    turns = trials["instructions; 6 examples as turns"]
    listed = trials["instructions; 6 examples listed in the instructions"]
    assert len(turns.messages(row)) == 2 + 2 * 6 and len(listed.messages(row)) == 2
    assert turns.instructions == INSTRUCTIONS and listed.instructions.startswith(INSTRUCTIONS)
    for shown in turns.demonstrations:
        assert f"Message: {shown.asked}\nAnswer: {shown.answer}" in listed.instructions
    assert listed.messages(row)[-1] == row.messages[-1]


def test_a_prompt_speaks_of_examples_only_where_there_are_some() -> None:
    task, trials = reviews(), by_name()
    for name, trial in trials.items():
        if "no examples" in name:
            assert "example" not in trial.instructions.lower() and not trial.demonstrations
    assert not any(name.startswith("form;") and "no examples" in name for name in trials), "nothing says what to do"
    described = trials["instructions and form; no examples"].instructions
    assert described == f"{task.instructions}\n\nAnswer with one of: positive, negative."


def test_a_form_is_described_with_its_values() -> None:
    schema = {"properties": {"mood": {"enum": ["good", "bad"]}, "words": {"type": "integer"}}}
    assert prompt_search.form(Output(schema=schema)) == (
        "Answer with a JSON object with the fields mood (good, bad), words.")
    assert prompt_search.form(Output()) == "Answer briefly."


def test_it_is_forecast_as_the_prompt_that_shares_least() -> None:
    task = reviews()
    start = base(task)
    shaped = prompt_search.shape(start, task)
    nearest = by_name()["instructions; the 4 nearest examples as turns"]
    row = task.rows("test")[0]
    assert shaped.messages(row) == nearest.messages(row)
    assert prompt_search.shape(start, task, prompt_search.Config(nearest=())) == start


class Preferring(PolicyCandidate):
    """Answers rightly when it is asked in one way, else by chance."""

    async def attempt(self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None,
                      on_text: OnText | None = None) -> list[list[Rollout]]:
        draw = random.Random(f"{self.details['prompt']}")
        answered = await super().attempt(rows, n=n, sampling=sampling, on_text=on_text)
        right = self.details["prompt"] == self.details["best"]
        return [[replace(rollout, completion=replace(  # type: ignore[type-var]
            rollout.completion, text=row.target if right else draw.choice(self.output.labels)))
            for rollout in group] for row, group in zip(rows, answered, strict=True)]


@pytest.mark.parametrize("best", [
    "instructions; no examples", "form; 6 examples listed in the instructions",
    "instructions and form; the 4 nearest examples as turns"])
def test_the_best_prompt_is_found_at_the_cost_that_was_said(best: str, tmp_path: Path) -> None:
    task = reviews(40, 40, 4)
    plain = base(task)
    start = Preferring("toy", "prompt", plain.policy, plain.instructions, plain.output, details={"best": best})
    found = asyncio.run(prompt_search.teach(start, task, Run(tmp_path)))
    assert found.details["prompt"] == best
    rounds = Run(tmp_path).metrics()
    assert [record["prompts"] for record in rounds] == [11] * 11 + [5] * 5 + [2] * 2
    assert sum(record["rows"] for record in rounds) == prompt_search.work(task).rows_answered == 290
