"""What reinforcement learning tells while it goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lessons import base, rewarded, teach

from posttrain.runs import Progress, Run
from posttrain.techniques import _bulletin, grpo
from posttrain.techniques._bulletin import Bulletin, Early, kept, readiness, ready, without_training
from posttrain.types import Completion, Message, Rollout, Row

ROW = Row("r1", (Message("user", "?"),))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([[0.0, 1.0]] * 15 + [[0.0, 0.0]] * 17, "47% of groups are mixed: there is something to learn from"),
        ([[0.0, 1.0]] + [[0.0, 0.0]] * 31, "3% ever right and 3% of groups mixed: teach it with sft first"),
        ([[1.0, 1.0]] * 30 + [[0.0, 1.0]] * 2, "94% of groups are all right: nothing is left to gain"),
        ([[1.0, 1.0]] * 16 + [[0.0, 0.0]] * 15 + [[0.0, 1.0]], "only 3% of groups are mixed: most of what is sampled"),
        ([[0.2, 0.3]] * 32, "100% of groups are mixed"),  # graded rewards that are never whole
    ],
)
def test_readiness(groups: list[list[float]], said: str) -> None:
    assert said in readiness(groups) and readiness(groups).startswith("from 32 rows × 2 answers, ")


def test_what_is_to_be_had_without_training() -> None:
    sure = [(1.0, "a"), (1.0, " a"), (1.0, "a"), (0.0, "b")]  # three of four agree, and are right
    split = [(0.0, "x"), (0.0, "x"), (1.0, "y"), (0.0, "z")]  # the commonest is wrong, one is right
    said = without_training([sure, split])
    assert said == ("one answer earns 0.50, the commonest of 4 0.50, the best of 4 1.00; "
                    "where 75% agree (50% of rows) they earn 1.00")
    assert "agree" not in without_training([split]), "nobody is sure"
    assert "agree" not in without_training([sure]), "everybody is"


def test_it_is_told_once_there_are_enough_groups() -> None:
    early: Early = []
    group = [(0.0, "x"), (1.0, "y")]
    assert ready(early, [group] * 20) == ("", "") and ready(early, [[]]) == ("", "")
    said, without = ready(early, [group] * 20)
    assert said.startswith("from 32 rows") and without.startswith("one answer earns 0.50")
    assert ready(early, [group]) == ("", "") and len(early) == 32


def test_a_bulletin_comes_every_half_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    run = Run(tmp_path, on_progress=lambda progress: told.append(progress.told))
    seconds = 0.0
    monkeypatch.setattr(Run, "seconds", property(lambda _: seconds))
    bulletin = Bulletin(run)
    bulletin.judged([Rollout(ROW, completion=Completion("perhaps", "stop"))])
    for step in range(1, 5):
        seconds = 20.0 * step
        bulletin.step(step, 60, 0.1 * step, 0.25)
        bulletin.judged([Rollout(ROW, completion=Completion(f"{step}", "stop"))])
    assert told == ["step 2 of 60: reward 0.15 (0.15 at first), best on dev 25%\n  row r1: then 'perhaps', now '1'",
                    "step 4 of 60: reward 0.25 (0.25 at first), best on dev 25%\n  row r1: then 'perhaps', now '3'"]


def test_grpo_tells_of_its_audit_its_readiness_and_how_it_goes(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    monkeypatch.setattr(_bulletin, "EVERY_SECONDS", 0)
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    config = grpo.Config(steps=6, rows_per_step=8, learning_rate=3e-2, evaluate_every=3, dev_rows=8, fooled="warn")
    learnt = asyncio.run(grpo.teach(base(task), task, Run(tmp_path, on_progress=heard.append), config))
    told = [progress.told for progress in heard if progress.told]
    assert told[0].startswith("audit: FOOLED") and "readiness: from 32 rows × 8 answers" in "\n".join(told)
    assert sum(line.startswith("step ") for line in told) == 6
    assert learnt.details["readiness"] in "\n".join(told)
    assert "best of 8" in learnt.details["without training"]
    few = teach(grpo, base(task), task, tmp_path / "few", replace(config, steps=2, learning_rate=1.0))
    assert "readiness" not in few.details, "16 rows do not say"


@pytest.mark.parametrize(("after", "told"), [
    ((0.9, 0.2), "step 10 of 20: after it the reward rose, the hidden score fell, and dev was no better"),
    ((0.5, 0.5), "step 10 of 20: after it the reward stayed, the hidden score stayed, and dev was no better"),
    ((0.3, None), "step 10 of 20: after it the reward fell, and dev was no better")])
def test_what_came_after_the_step_that_is_kept_is_told(after: tuple[float, float | None], told: str) -> None:
    def record(step: int, reward: float, hidden: float | None) -> dict[str, float]:
        return {"step": step, "reward": reward} | ({} if hidden is None else {"hidden_score": hidden})

    hidden = None if after[1] is None else 0.5
    records = [record(step, *((0.5, hidden) if step < 10 else after)) for step in range(20)]
    assert kept([*records, {"step": 10, "dev_score": 1.0}], 10, 20) == told
    assert kept(records, 20, 20) == "step 20 of 20" and kept(records, 0, 20) == "step 0 of 20"
    assert kept([], 10, 20) == "step 10 of 20"
