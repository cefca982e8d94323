"""What is said of an earlier run's winner in a comparison like it, whatever came of the two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_comparison import comparison

from posttrain.api.comparing import still_wins
from posttrain.comparison.conclude import folder_name
from posttrain.comparison.results import ComparisonResult, Outcome
from posttrain.runs import write_json


def concluded(chosen: str, outcome: Outcome, model: str = "old") -> ComparisonResult:
    found = comparison(own=False)
    return replace(found, model=model, recommendation=replace(found.recommendation, candidate=chosen, outcome=outcome))


def kept(found: ComparisonResult, folder: Path) -> Path:
    """A run's folder with this result."""
    write_json(folder / "config.json", {"kind": "compare", "task_hash": found.task_hash})
    write_json(folder / "report.json", found.to_report())
    for result in found.candidates:
        result.evaluation.write(folder / "candidates" / folder_name(result.name) / "test.jsonl")
    return folder


@pytest.mark.parametrize(("before", "now", "answer", "sentence"), [
    (("sft", "winner"), ("sft", "winner"), True, "The old winner, sft on old (64 %), still wins on new (64 %)."),
    (("sft", "winner"), ("linear", "a floor wins"), False,
     "The old winner, sft on old (64 %), no longer wins: linear does on new (64 %)."),
    (("sft", "winner"), ("sft", "no clear winner"), False,
     "The old winner, sft on old (64 %), is chosen again, but there is no clear winner, on new (64 %)."),
    (("few_shot", "winner"), ("sft", "no clear winner"), False,
     "The old winner, few_shot on old (14 %), gives way to sft, but there is no clear winner, on new (14 %)."),
    (("sft", "no clear winner"), ("sft", "winner"), True,
     "The old choice (there was no clear winner), sft on old (64 %), wins on new (64 %)."),
    (("sft", "no clear winner"), ("linear", "a floor wins"), False,
     "The old choice (there was no clear winner), sft on old (64 %), does not win: linear does on new (64 %)."),
    (("linear", "a floor wins"), ("linear", "a floor wins"), True,
     "The old winner, linear (31 %), which needs no model of ours, still wins beside new."),
])
def test_what_became_of_the_winner(
        tmp_path: Path, before: tuple[str, Outcome], now: tuple[str, Outcome], answer: bool, sentence: str) -> None:
    like = kept(concluded(*before), tmp_path)
    found = still_wins(like, concluded(*now, model="new"))
    assert (found.candidate, found.answer, found.sentence) == (before[0], answer, sentence)


def test_what_was_not_tried_again_has_no_answer(tmp_path: Path) -> None:
    new = concluded("linear", "a floor wins", model="new")
    without = replace(new, candidates=tuple(result for result in new.candidates if result.name != "sft"))
    found = still_wins(kept(concluded("sft", "winner"), tmp_path), without)
    assert found.answer is None and found.sentence == "The old winner, sft, could not be tried on new."
