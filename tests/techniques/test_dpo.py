"""dpo raises what is preferred, makes pairs where there are none, and says so when it cannot."""

from __future__ import annotations

import asyncio
import hashlib
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import base, only, reviews, score, teach, without

from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.toy import ToyPolicy
from posttrain.rollouts import taught as lesson
from posttrain.runs import Budget, Progress, Run
from posttrain.techniques import dpo
from posttrain.types import Row, Score, Task, UserError


def preference(candidate: PolicyCandidate, task: Task) -> float:
    """Mean of log pi(chosen) - log pi(rejected), in nats."""
    rows = task.rows("train")
    sides = ([lesson(candidate, row, getattr(row, side)) for row in rows] for side in ("target", "rejected"))
    both = [asyncio.run(candidate.policy.logprobs(data)) for data in sides]
    return statistics.fmean(sum(one) - sum(other) for one, other in zip(*both, strict=True))


def test_dpo_raises_the_preference_for_the_chosen_answer(tmp_path: Path) -> None:
    task = only(reviews(), 16)
    start = base(task)
    learnt = teach(dpo, start, task, tmp_path, dpo.Config(learning_rate=1e-2, epochs=15))
    assert preference(learnt, task) > preference(start, task) + 2
    logged = [record["preferred"] for record in Run(tmp_path).metrics() if "preferred" in record]
    assert logged[-1] > 0.9 and learnt.details["training"]["pairs"] == 16


def test_dpo_begins_at_the_reference(tmp_path: Path) -> None:
    task = only(reviews(), 8)
    teach(dpo, base(task), task, tmp_path, dpo.Config(learning_rate=1e-2, epochs=1))
    first = next(record for record in Run(tmp_path).metrics() if "margin" in record)
    assert first["margin"] == pytest.approx(0, abs=1e-4) and first["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_the_reference_scores_each_answer_once_and_is_given_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, scored, dropped = only(reviews(), 8), list[str](), list[str]()
    plain_logprobs, plain_drop = ToyPolicy.logprobs, ToyPolicy.drop
    monkeypatch.setattr(ToyPolicy, "logprobs", lambda self, data: scored.append(self.name) or plain_logprobs(self, data))
    monkeypatch.setattr(ToyPolicy, "drop", lambda self: dropped.append(self.name) or plain_drop(self))
    start = base(task)
    teach(dpo, start, task, tmp_path, dpo.Config(learning_rate=1e-2, epochs=5))
    frozen = f"{start.policy.name}-frozen"
    assert scored.count(frozen) == 1 and dropped == [frozen], "chosen and rejected together, for all epochs"


def test_dpo_makes_its_pairs_from_wrong_samples(tmp_path: Path) -> None:
    task = without(only(reviews(), 12), "rejected")
    start = base(task)
    run = Run(tmp_path)
    pairs = asyncio.run(dpo.preferences(start, task, run, dpo.Config()))
    assert pairs and all(rejected != chosen == row.target for row, chosen, rejected in pairs)
    assert all(rejected in task.output.labels for _, _, rejected in pairs), "wrong, but in the task's form"
    learnt = teach(dpo, start, task, tmp_path, dpo.Config(learning_rate=3e-2, epochs=30))
    assert score(learnt, task) > score(start, task)


def test_dpo_without_targets_sets_the_best_sample_against_the_worst(tmp_path: Path) -> None:
    task = without(only(reviews(), 12), "rejected")
    wished = {row.id: row.target for row in task.rows("train")}

    class Wished:
        """Knows what no row says."""

        async def grade(self, row: Row, answer: str) -> Score:
            right = wished[row.id] == answer
            return Score(float(right), right)

    task = replace(without(task, "target"), grader=Wished())
    pairs = asyncio.run(dpo.preferences(base(task), task, Run(tmp_path), dpo.Config(samples=8)))
    assert pairs and all(chosen == wished[row.id] != rejected for row, chosen, rejected in pairs)
    assert all(rejected in task.output.labels for _, _, rejected in pairs)


def test_dpo_without_a_wrong_answer_has_nothing_to_learn(tmp_path: Path) -> None:
    task = without(only(reviews(), 8), "rejected")
    task = replace(task, output=replace(task.output, labels=("positive",)), splits={
        name: tuple(replace(row, target="positive") for row in rows) for name, rows in task.splits.items()})
    with pytest.raises(UserError, match="no pairs"):
        teach(dpo, base(replace(task, output=reviews().output)), replace(task, grader=AlwaysRight()), tmp_path,
              dpo.Config())


def test_dpo_that_learns_nothing_says_so(tmp_path: Path) -> None:
    task = only(reviews(), 8)
    with pytest.raises(UserError, match="dpo learnt nothing") as still:
        teach(dpo, base(task), task, tmp_path / "still", dpo.Config(learning_rate=0.0))
    assert still.value.remedy and still.value.place == str(tmp_path / "still")
    rows = task.rows("train")
    turned = tuple(replace(row, id=f"{row.id}-turned", target=row.rejected, rejected=str(row.target)) for row in rows)
    contrary = replace(task, splits={**task.splits, "train": rows + turned})  # every pair, and its contrary
    with pytest.raises(UserError, match="dpo learnt nothing"):
        teach(dpo, base(task), contrary, tmp_path / "contrary", dpo.Config(learning_rate=1e-2, epochs=5))
    with pytest.raises(UserError, match=r"learnt nothing|diverged"):
        teach(dpo, base(task), contrary, tmp_path / "wild", dpo.Config(learning_rate=1e4))


def test_dpo_says_what_it_prefers_now(tmp_path: Path) -> None:
    task = only(reviews(), 16)
    start = base(task)
    learnt = teach(dpo, start, task, tmp_path, dpo.Config(learning_rate=1e-2, epochs=15))
    training = learnt.details["training"]
    assert training["preferred"] == 1.0
    assert training["margin"] == pytest.approx(preference(learnt, task) - preference(start, task), rel=1e-3)


LONG = dpo.Config(learning_rate=3e-3, epochs=6, pairs_per_step=2)
LONG_STEPS = dpo.CHECKPOINT_STEPS + 4
STEPS_OF_A_BUDGET = 7


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def train_and_digest(engine: TorchEngine, folder: Path, **settings: Any) -> dict[str, str]:
    """sha256 of what was learnt, and of the adapter and the optimiser in the one checkpoint that is left."""
    task = only(reviews(), 8)
    start = PolicyCandidate("tiny", "prompt", engine.base(), task.instructions, task.output)
    learnt = asyncio.run(dpo.teach(start, task, Run(folder, **settings), LONG))
    asyncio.run(learnt.policy.save(folder / "learnt"))
    learnt.policy.drop()
    [checkpoint] = (folder / "checkpoints").iterdir()
    files = [folder / "learnt" / "adapter_model.safetensors",
             *(checkpoint / name for name in ("adapter_model.safetensors", "optimiser.safetensors"))]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed_after(steps: int) -> Callable[[Progress], None]:
    def end(progress: Progress) -> None:
        if progress.done == steps:
            raise Killed

    return end


@pytest.mark.parametrize("budget", [Budget(), Budget(steps=STEPS_OF_A_BUDGET)], ids=["all steps", "a budget of steps"])
def test_a_training_that_was_killed_goes_on_to_the_same_bytes(
        engine: TorchEngine, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = budget.steps or LONG_STEPS
    whole = train_and_digest(engine, tmp_path / "whole", budget=budget)
    with pytest.raises(Killed):
        train_and_digest(engine, tmp_path / "killed", budget=budget, on_progress=killed_after(steps - 1))

    async def killed(*_: Any) -> dict[str, float]:
        raise Killed

    monkeypatch.setattr(dpo, "judged", killed)
    with pytest.raises(Killed):
        train_and_digest(engine, tmp_path / "killed", budget=budget)
    monkeypatch.undo()
    taken: list[float] = []
    resumed = train_and_digest(
        engine, tmp_path / "killed", budget=budget, on_progress=lambda progress: taken.append(progress.done))
    assert not taken, "no step is taken again after the last one"
    assert resumed == whole and len({*whole.values()}) == 2, "what was learnt is what is in the checkpoint"
    logs = [[{**record, "seconds": 0} for record in Run(tmp_path / name).metrics()] for name in ("whole", "killed")]
    assert logs[0] == logs[1] and len(logs[0]) == steps + 1


@given(st.floats(-700, 700))
def test_softplus(x: float) -> None:
    assert dpo.softplus(x) == pytest.approx(math.log(1 + math.exp(x)), rel=1e-9, abs=1e-12)


class AlwaysRight:
    async def grade(self, row: Row, answer: str) -> Score:  # noqa: ARG002
        return Score(1.0, True)
