"""Every technique on the real embedded model: eight rows of a built-in example, learnt until the answers change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import answers, only, without

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.discovery import find, names
from posttrain.engines.torch.engine import TorchEngine
from posttrain.evaluation.evaluate import quick_score
from posttrain.runs import Run
from posttrain.types import Task

pytestmark = pytest.mark.slow
TRIAGE = Path(__file__).parents[2] / "examples" / "support_triage"
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 15, "batch_size": 4, "learning_rate": 2e-3, "patience": 15},
    "dpo": {"epochs": 6, "pairs_per_step": 4, "learning_rate": 1e-3, "samples": 4},
    "grpo": {"steps": 12, "rows_per_step": 4, "group_size": 8, "learning_rate": 1e-3, "evaluate_every": 6},
    "few_shot": {"counts": (3,), "draws": 2}, "prompt_search": {"first_rows": 4, "shots": (0, 3), "nearest": (2,)},
    "knn_few_shot": {"nearest": 3},
}
AS_BEFORE = {"base", "best_of"}
"""Techniques that need not change an answer."""


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    torch.set_num_threads(1)
    engine = TorchEngine.open("smollm2", device="cpu")
    yield engine
    engine.close()


def eight_rows(name: str) -> Task:
    """Eight rows of triage; for grpo of arithmetic, where the base model is right now and then."""
    return only(tasks.load("arithmetic" if name == "grpo" else str(TRIAGE)), 8)


@pytest.mark.parametrize("name", [name for name in names("techniques") if find("techniques", name).KIND != "floor"])
def test_eight_rows_change_the_answers(name: str, engine: TorchEngine, tmp_path: Path) -> None:
    module, task = find("techniques", name), eight_rows(name)
    if name == "dpo":
        task = without(task, "rejected")
    start = PolicyCandidate("smollm2", "prompt", engine.base(), task.instructions, task.output)
    config = [module.Config(**SETTINGS[name])] if name in SETTINGS else []
    taught = asyncio.run(module.teach(start, task, Run(tmp_path), *config))
    rows = task.rows("train")
    before, after = answers(start, rows), answers(taught, rows)
    assert before != after or name in AS_BEFORE
    was, now = (asyncio.run(quick_score(candidate, task, rows)) for candidate in (start, taught))
    if name == "sft":
        assert now[0] >= 7 / 8 > was[0], "learnt by heart"
    elif module.KIND == "weights":
        assert now > was
    if taught.kind == "weights":
        asyncio.run(taught.save(tmp_path / "saved"))
        again = replace(taught, policy=engine.load(tmp_path / "saved" / "adapter"))
        assert answers(again, rows) == after
