"""Every technique on the real embedded model: eight rows of a built-in example, learnt by heart, and the answers change.

Prompt techniques cannot learn rows by heart: of them it is asked that they change an answer.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import answers, only

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.discovery import find, names
from posttrain.engines.torch.engine import TorchEngine
from posttrain.evaluation.evaluate import quick_score
from posttrain.rollouts import taught as lesson
from posttrain.runs import Run
from posttrain.techniques import _chain as chain
from posttrain.techniques import dapo, dpo, dr_grpo, few_shot, grpo, sft
from posttrain.types import Row, Task, target_text

pytestmark = pytest.mark.slow
TRIAGE = Path(__file__).parents[2] / "examples" / "support_triage"
PROMPTED: dict[str, dict[str, Any]] = {
    "best_of": {}, "few_shot": {"counts": (3,), "draws": 2}, "knn_few_shot": {"nearest": 3},
    "prompt_search": {"first_rows": 4, "shots": (0, 3), "nearest": (2,)}, "retrieval": {}}
BY_HEART = sft.Config(epochs=15, batch_size=4, learning_rate=2e-3, patience=15)
HAVE_A_TEST_OF_THEIR_OWN = {"sft", "dpo", "grpo", "dr_grpo", "dapo"}
AS_BEFORE = {"base"}
"""The model as it is: nothing to change."""


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    torch.set_num_threads(1)
    engine = TorchEngine.open("smollm2", device="cpu")
    yield engine
    engine.close()


def begin(engine: TorchEngine, task: Task) -> PolicyCandidate:
    return PolicyCandidate("smollm2", "prompt", engine.base(), task.instructions, task.output)


def right(candidate: PolicyCandidate, task: Task) -> float:
    return asyncio.run(quick_score(candidate, task, task.rows("train")))[0]


def saved_answers_too(candidate: PolicyCandidate, engine: TorchEngine, rows: tuple[Row, ...], folder: Path) -> bool:
    """Whether the candidate answers the same from its saved adapter."""
    asyncio.run(candidate.save(folder))
    again = replace(candidate, policy=engine.load(folder / "adapter"))
    return answers(again, rows) == answers(candidate, rows)


def test_every_technique_is_tested_here() -> None:
    known = {name for name in names("techniques") if find("techniques", name).KIND != "floor"}
    assert known == set(PROMPTED) | HAVE_A_TEST_OF_THEIR_OWN | AS_BEFORE


@pytest.mark.parametrize("name", PROMPTED)
def test_a_prompt_changes_an_answer(name: str, engine: TorchEngine, tmp_path: Path) -> None:
    module, task = find("techniques", name), only(tasks.load(str(TRIAGE)), 8)
    start, rows = begin(engine, task), task.rows("train")
    config = [module.Config(**PROMPTED[name])] if PROMPTED[name] else []
    taught = asyncio.run(module.teach(start, task, Run(tmp_path), *config))
    was, now = answers(start, rows), answers(taught, rows)
    print(name, sum(a != b for a, b in zip(was, now, strict=True)), "answers of 8 changed")
    assert was != now


@pytest.mark.parametrize("expression", ["sft", "retrieval+sft"])
def test_sft_learns_eight_records_by_heart(expression: str, engine: TorchEngine, tmp_path: Path) -> None:
    task = only(tasks.load(str(TRIAGE)), 8)
    start, rows = begin(engine, task), task.rows("train")
    learnt = asyncio.run(chain.teach(expression, start, task, Run(tmp_path), last=BY_HEART))
    assert isinstance(learnt, PolicyCandidate)
    was, now = right(start, task), right(learnt, task)
    print(expression, was, now, learnt.details["training"])
    assert now >= 7 / 8 > 3 / 8 >= was
    assert ("\n---\n" in learnt.messages(rows[0])[-1].content) == (expression == "retrieval+sft")
    assert saved_answers_too(learnt, engine, rows, tmp_path / "saved")


def test_dpo_prefers_all_eight_chosen_answers(engine: TorchEngine, tmp_path: Path) -> None:
    task = only(tasks.load(str(TRIAGE)), 16)
    said = answers(begin(engine, task), task.rows("train"))
    pairs = [replace(row, rejected=own) for row, own in zip(task.rows("train"), said, strict=True)]
    rows = tuple(row for row in pairs if target_text(row.target or "") != row.rejected)[:8]
    task = replace(task, splits=dict.fromkeys(("train", "dev", "test"), rows))
    start = begin(engine, task)
    config = dpo.Config(epochs=4, pairs_per_step=4, learning_rate=1e-3)
    learnt = asyncio.run(dpo.teach(start, task, Run(tmp_path), config))

    def margins(candidate: PolicyCandidate) -> list[float]:
        sides = [[lesson(candidate, row, getattr(row, side)) for row in rows] for side in ("target", "rejected")]
        chosen, rejected = (asyncio.run(candidate.policy.logprobs(data)) for data in sides)
        return [sum(one) - sum(other) for one, other in zip(chosen, rejected, strict=True)]

    was, now = margins(start), margins(learnt)
    print("dpo: log p(chosen) - log p(rejected)", [round(x, 1) for x in was], [round(x, 1) for x in now])
    assert len(rows) == 8 and sum(margin < 0 for margin in was) >= 6, "it preferred its own answers"
    assert min(now) > 2, "now the better ones, each at least seven times as likely"
    assert learnt.details["training"]["preferred"] == 1
    assert answers(start, rows) != answers(learnt, rows)
    assert saved_answers_too(learnt, engine, rows, tmp_path / "saved")


@pytest.mark.parametrize("module", [grpo, dr_grpo, dapo])
def test_reinforcement_learns_eight_sums(module: Any, engine: TorchEngine, tmp_path: Path) -> None:
    task = tasks.load("arithmetic")
    shown = next(few_shot.draws(begin(engine, task), task, 0, few_shot.Config(counts=(4,), draws=1)))
    examples = {demonstration.row_id for demonstration in shown.demonstrations}
    rows = tuple(row for row in task.rows("train") if row.id not in examples)
    task = only(replace(task, splits={**task.splits, "train": rows}), 8)
    config = module.Config(steps=15, rows_per_step=8, group_size=8, learning_rate=1e-3, evaluate_every=5)
    learnt = asyncio.run(module.teach(shown, task, Run(tmp_path), config))
    rewards = [record["reward"] for record in Run(tmp_path).metrics() if "reward" in record]
    was, now = right(shown, task), right(learnt, task)
    print(module.__name__, was, now, [round(reward, 2) for reward in rewards])
    assert now >= 7 / 8 > 4 / 8 >= was
    assert statistics.fmean(rewards[:2]) < 0.4 and statistics.fmean(rewards[-3:]) > 0.75
    assert answers(shown, task.rows("train")) != answers(learnt, task.rows("train"))
    assert saved_answers_too(learnt, engine, task.rows("train"), tmp_path / "saved")
