"""What every technique keeps to.  A new technique has to have a case here."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lessons import answers, base, reviews, score, without

from posttrain import candidates
from posttrain.candidates.policy import PolicyCandidate
from posttrain.discovery import find, names
from posttrain.runs import Budget, Progress, Run
from posttrain.techniques._work import Work
from posttrain.types import Candidate, Grader, LearntNothing, Row, Score, Task, UserError


@dataclass(frozen=True)
class Case:
    """Settings under which a toy learns `reviews` at once; the test score it then has at least; what it needs."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    at_least: float = 0.0
    needs: tuple[str, ...] = ()


REINFORCED = Case({"steps": 40, "learning_rate": 1e-2, "evaluate_every": 10, "dev_rows": 16, "rows_per_step": 8},
                  at_least=0.75)

CASES = {
    "base": Case(),
    "best_of": Case({"votes": 3}),
    "constant": Case(at_least=0.25, needs=("target",)),
    "dpo": Case({"learning_rate": 1e-2, "epochs": 10}, at_least=0.75, needs=("target",)),
    "few_shot": Case({"counts": (2,), "draws": 2, "dev_rows": 8}, needs=("target",)),
    "dapo": REINFORCED,
    "dr_grpo": REINFORCED,
    "grpo": REINFORCED,
    "knn_few_shot": Case({"nearest": 2}, needs=("target",)),
    "linear": Case(at_least=0.85, needs=("target",)),
    "nearest": Case(at_least=0.7, needs=("target",)),
    "prompt_search": Case({"first_rows": 4, "shots": (0, 2), "nearest": (2,)}, needs=("target",)),
    "retrieval": Case(needs=("documents",)),
    "sft": Case({"learning_rate": 1e-2, "epochs": 10}, at_least=0.9, needs=("target",)),
}


def case(name: str) -> Case:
    if name not in CASES:
        pytest.fail(f"technique {name} has no case in tests/techniques/test_every_technique.py")
    return CASES[name]


async def teach(name: str, start: PolicyCandidate, task: Task, run: Run) -> Candidate:
    module = find("techniques", name)
    settings = case(name).settings
    taught: Candidate = await module.teach(start, task, run, *([module.Config(**settings)] if settings else []))
    return taught


async def teach_a_little(name: str, start: PolicyCandidate, task: Task, run: Run, steps: int) -> Candidate | None:
    """Reinforcement learning ends after so many steps; None when it had learnt nothing by then."""
    if "steps" not in case(name).settings:
        return await teach(name, start, task, run)
    run.budget = Budget(steps=steps)
    with contextlib.suppress(LearntNothing):
        return await teach(name, start, task, run)
    return None


@pytest.fixture(scope="module")
def task() -> Task:
    return reviews()


@pytest.fixture(scope="module")
def start(task: Task, tmp_path_factory: pytest.TempPathFactory) -> PolicyCandidate:
    """A toy that writes a label, but not the right one: reinforcement learning must have something to begin with."""
    wrong = replace(task, splits={**task.splits, "train": tuple(
        replace(row, target=label) for row in task.rows("train")[:8] for label in task.output.labels), "dev": ()})
    config = find("techniques", "sft").Config(learning_rate=1e-2, epochs=1, brief=False)
    run = Run(tmp_path_factory.mktemp("start"))
    learnt: PolicyCandidate = asyncio.run(find("techniques", "sft").teach(base(task), wrong, run, config))
    return replace(learnt, kind="prompt", policy=learnt.policy.frozen(), details={})


@pytest.mark.parametrize("name", names("techniques"))
def test_what_it_teaches_can_be_judged_saved_and_loaded(
        name: str, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    module, shown = find("techniques", name), list[Progress]()
    before = answers(start, task.rows("test"))
    run = Run(tmp_path / "run", seed=1, on_progress=shown.append)
    taught = asyncio.run(teach(name, start, task, run))

    assert taught.kind == module.KIND and module.LABEL
    assert answers(start, task.rows("test")) == before, "the candidate it was given is as it was"
    said = answers(taught, task.rows("test"))
    assert set(said) <= set(task.output.labels), "the answers keep the task's form"
    assert score(taught, task) >= case(name).at_least
    assert all(0 <= progress.done <= progress.total for progress in shown)

    asyncio.run(taught.save(tmp_path / "saved"))
    policy: Any = start.policy

    def open_policy(_: str, folder: Path | None) -> Any:
        return policy.loaded(folder) if folder else policy

    loaded = candidates.load(tmp_path / "saved", open_policy)
    assert loaded.kind == taught.kind and answers(loaded, task.rows("test")) == said


@pytest.mark.parametrize("name", names("techniques"))
def test_the_same_seed_teaches_the_same(name: str, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    first, second = (
        asyncio.run(teach_a_little(name, start, task, Run(tmp_path / i, seed=3), steps=12)) for i in "01")
    if first is None or second is None:
        assert first is second
    else:
        assert answers(first, task.rows("test")) == answers(second, task.rows("test"))
    one, other = ([{**record, "seconds": 0} for record in Run(tmp_path / i).metrics()] for i in "01")
    assert one == other
    assert len(one) >= 12 or "steps" not in case(name).settings


@pytest.mark.parametrize("name", names("techniques"))
def test_what_it_needs_and_has_not_is_a_user_error(
        name: str, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    for need in case(name).needs:
        poorer = replace(task, documents=()) if need == "documents" else without(task, need, "rejected")
        with pytest.raises(UserError) as caught:
            asyncio.run(teach(name, start, poorer, Run(tmp_path)))
        assert caught.value.remedy and caught.value.message


@pytest.mark.parametrize("name", names("techniques"))
def test_it_says_how_much_it_will_do(name: str, task: Task) -> None:
    module = find("techniques", name)
    signature = inspect.signature(module.teach)
    assert list(signature.parameters)[:3] == ["candidate", "task", "run"] and inspect.iscoroutinefunction(module.teach)
    if hasattr(module, "Config"):
        assert is_dataclass(module.Config) and module.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert signature.parameters["config"].default == module.Config()
    if hasattr(module, "work"):
        work = module.work(task)
        assert isinstance(work, Work) and work.rows_answered + work.rows_trained > 0
        assert (work.rows_trained > 0) == (module.KIND == "weights")


@pytest.mark.parametrize("name", [name for name in names("techniques") if find("techniques", name).KIND == "weights"])
@pytest.mark.parametrize("budget", [Budget(steps=0), Budget(minutes=0)])
def test_a_budget_that_is_used_up_gives_no_untrained_weights(
        name: str, budget: Budget, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        asyncio.run(teach(name, start, task, Run(tmp_path, budget=budget)))


@pytest.mark.parametrize("name", [name for name in names("techniques") if find("techniques", name).KIND == "weights"])
def test_it_stops_at_its_steps(name: str, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    run = Run(tmp_path, budget=Budget(steps=2))
    try:
        taught = asyncio.run(teach(name, start, task, run))
        assert isinstance(taught, PolicyCandidate) and taught.details["training"]["steps"] == 2
    except UserError as error:
        assert "learnt nothing" in error.message, "two steps may be too few"
    assert len({record["step"] for record in run.metrics() if "loss" in record or "reward" in record}) == 2


@pytest.mark.parametrize("name", [name for name in names("techniques") if hasattr(find("techniques", name), "work")])
def test_a_search_without_time_still_gives_a_candidate(
        name: str, task: Task, start: PolicyCandidate, tmp_path: Path) -> None:
    if find("techniques", name).KIND == "weights":
        return
    taught = asyncio.run(teach(name, start, task, Run(tmp_path, budget=Budget(minutes=0))))
    assert set(answers(taught, task.rows("test"))) <= set(task.output.labels)


@dataclass
class Recording:
    """A grader that remembers which labels it was asked about, and of which split."""

    grader: Grader
    dev: frozenset[str]
    seen: set[str] = field(default_factory=set)

    async def grade(self, row: Row, answer: str) -> Score:
        if row.id in self.dev:
            self.seen.add(str(row.target))
        return await self.grader.grade(row, answer)


@pytest.mark.parametrize("name", names("techniques"))
def test_what_is_judged_is_drawn_from_a_file_that_is_sorted_by_label(
        name: str, start: PolicyCandidate, tmp_path: Path) -> None:
    task = reviews(dev=200)
    dev = sorted(task.rows("dev"), key=lambda row: str(row.target))
    grader = Recording(task.grader, frozenset(row.id for row in dev))
    task = replace(task, grader=grader, splits={**task.splits, "dev": tuple(dev)})
    asyncio.run(teach_a_little(name, start, task, Run(tmp_path / name, seed=3), steps=2))
    assert len(grader.seen) != 1
