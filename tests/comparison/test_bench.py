"""What a candidate's way through a comparison leaves behind: further seeds, learning curves, times, costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_comparison import reviews
from synthetic_comparison import comparison, evaluation, result

from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison import bench as benches
from posttrain.comparison import html, markdown, table
from posttrain.comparison.bench import Bench
from posttrain.comparison.compare import compare, read
from posttrain.comparison.conclude import Record, Settings
from posttrain.comparison.estimate import CLOSING_SECONDS
from posttrain.comparison.money import Prices
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Budget, Run, read_json
from posttrain.techniques import _chain as chain
from posttrain.types import Task, UserError

TASK = reviews()


def bench(folder: Path, budget: Budget = Budget(), task: Task = TASK) -> Bench:
    return Bench(task, Run(folder, budget=budget), Settings(latency=False), Record())


def start(task: Task = TASK) -> PolicyCandidate:
    return PolicyCandidate.of("toy", ToyPolicy.open_for(task), task)


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """report.html takes a second or two to draw, and is looked at elsewhere."""
    monkeypatch.setattr(html, "render", lambda *_: None)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs in which something was taught, in order."""
    runs: list[Run] = []
    teach = chain.teach

    async def watched(expression: str, candidate: Any, task: Task, run: Run, **more: Any) -> Any:
        runs.append(run)
        return await teach(expression, candidate, task, run, **more)

    monkeypatch.setattr(chain, "teach", watched)
    return runs


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fails("seed-1")`: teaching in a folder of that name learns nothing."""

    def let_fail(*folders: str) -> None:
        teach = chain.teach

        async def failing(expression: str, candidate: Any, task: Task, run: Run, **more: Any) -> Any:
            if run.folder.name in folders:
                raise UserError("learnt nothing", place=str(run.folder))
            return await teach(expression, candidate, task, run, **more)

        monkeypatch.setattr(chain, "teach", failing)

    return let_fail


def compared(folder: Path, *candidates: str) -> ComparisonResult:
    policies = {"toy": ToyPolicy.open_for(TASK)}
    return asyncio.run(compare(TASK, policies, Run(folder), Settings(candidates, latency=False)))


# ---- once more: other seeds, fewer rows

def test_a_seed_that_learns_nothing_is_counted_and_costs_nothing_else(
        tmp_path: Path, fails: Callable[..., None], taught: list[Run]) -> None:
    fails("seed-1")
    found = compared(tmp_path, "base", "sft")
    sft = found.candidate("sft")
    assert (sft.training_runs, len(sft.seed_scores), sft.seed_scores[0]) == (3, 2, sft.score)
    assert "sft, seed 1: learnt nothing" in found.notes and "sft, seed 1: learnt nothing" in sft.notes
    assert found.seeds == (0, 1, 2)
    said = f"2 of 3 training runs of sft learnt something: {', '.join(f'{100 * s:.0f}' for s in sft.seed_scores)} %."
    assert said in table.training_runs(found) and said in markdown.document(found, {})
    before = len(taught)
    again = compared(tmp_path, "base", "sft")
    assert len(taught) == before, "it is not tried again"
    assert again.candidate("sft") == read(tmp_path).candidate("sft") == sft


def test_when_no_other_seed_learns_anything_that_is_said_too(tmp_path: Path, fails: Callable[..., None]) -> None:
    fails("seed-1", "seed-2", "rows-10", "rows-20")
    found = compared(tmp_path, "sft")
    sft = found.candidate("sft")
    assert (sft.training_runs, sft.seed_scores, sft.learning_curve) == (3, (sft.score,), ())
    assert table.training_runs(found)[0].startswith("1 of 3 training runs of sft learnt something")
    assert "one training run" not in markdown.document(found, {}).casefold()


def test_a_size_from_which_nothing_was_learnt_is_left_out_of_the_curve(
        tmp_path: Path, fails: Callable[..., None]) -> None:
    fails("rows-10")
    found = compared(tmp_path, "nearest").candidate("nearest")
    assert [n for n, _ in found.learning_curve] == [20, 40]
    assert "nearest, 10 rows: learnt nothing" in found.notes


def test_learning_curves_draw_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file sorted by label would else teach its first label alone."""
    rows = sorted(TASK.rows("train"), key=lambda row: str(row.target))
    task = replace(TASK, splits={**TASK.splits, "train": tuple(rows)})
    seen = []
    teach = chain.teach

    async def watched(expression: str, candidate: Any, task: Task, run: Run, **more: Any) -> Any:
        seen.append(task.rows("train"))
        return await teach(expression, candidate, task, run, **more)

    monkeypatch.setattr(chain, "teach", watched)
    floor = result("nearest", "floor", 0.5)
    asyncio.run(bench(tmp_path, task=task).learning_curve(floor, None))
    quarter, half = seen
    assert (len(quarter), len(half)) == (10, 20)
    assert all(row in half for row in quarter) and all(row in rows for row in half)
    assert {row.target for row in quarter} == {"positive", "negative"}
    asyncio.run(bench(tmp_path, task=task).learning_curve(floor, None))
    assert seen[2:] == [quarter, half], "the same rows every time"


@pytest.mark.parametrize(("rows", "sizes"), [(1, []), (2, [1]), (3, [1, 2]), (40, [10, 20])])
def test_no_size_of_a_learning_curve_comes_twice(rows: int, sizes: list[int]) -> None:
    assert [len(some) for some in benches._shares(TASK.rows("train")[:rows], 0)] == sizes


def test_what_is_trained_again_has_the_limits_of_the_first_time(tmp_path: Path, taught: list[Run]) -> None:
    trained = replace(result("sft", "weights", 0.5), technique="sft", training_seconds=3.0)
    asyncio.run(bench(tmp_path / "a").more_seeds(trained, start()))
    assert [(run.seed, run.budget) for run in taught] == [(1, Budget()), (2, Budget())]
    taught.clear()
    asyncio.run(bench(tmp_path / "b", Budget(10, steps=4)).more_seeds(trained, start()))
    assert [run.budget for run in taught] == [Budget(3 / 60, 4)] * 2
    taught.clear()
    asyncio.run(bench(tmp_path / "c", Budget(10)).learning_curve(trained, start()))
    assert [run.budget.minutes for run in taught] == pytest.approx([1 / 60, 1.5 / 60]), "a second at least"


def test_time_for_the_report_is_kept_back(tmp_path: Path, taught: list[Run]) -> None:
    trained = replace(result("sft", "weights", 0.5), technique="sft", training_seconds=1.0)
    beginner = start()
    short = bench(tmp_path / "short", Budget((CLOSING_SECONDS + 0.4) / 60))
    assert asyncio.run(short.more_seeds(trained, beginner)) == trained
    curve = asyncio.run(short.learning_curve(trained, beginner)).learning_curve
    assert [run.folder.name for run in taught] == ["rows-10"], "there is time for a quarter, not for half"
    assert [n for n, _ in curve] == [10, 40]


def test_training_once_is_said_to_be_for_want_of_time(tmp_path: Path) -> None:
    policies = {"toy": ToyPolicy.open_for(TASK)}
    run, settings = Run(tmp_path, budget=Budget(CLOSING_SECONDS / 60)), Settings(("base", "sft"), latency=False)
    found = asyncio.run(compare(TASK, policies, run, settings))
    assert found.candidate("sft").training_runs == 1
    assert "sft was trained once, and without a learning curve: no time was left; give more --minutes" in found.notes
    assert not any("no time was left" in note for note in compared(tmp_path / "all", "base", "sft").notes)


# ---- what is kept

def test_times_are_kept_with_the_candidate(tmp_path: Path) -> None:
    """Else a resumed run believes that judging takes no time, and reports only what was done last."""
    first = compared(tmp_path, "nearest", "sft").timings or {}
    second = compared(tmp_path, "nearest", "sft").timings or {}
    parts = {"sft: teaching", "sft: dev", "sft: test", "sft: seed 1", "sft: 10 rows", "nearest: test"}
    assert parts <= set(first)
    assert {part: second[part] for part in parts} == {part: first[part] for part in parts}


def test_two_names_for_one_folder_are_refused(tmp_path: Path) -> None:
    here = bench(tmp_path)
    here.keep(result("sft@a/b", "weights", 0.5))
    evaluation("sft@a/b", [True]).write(here.folder("sft@a/b") / "test.jsonl")
    assert here.kept("sft@a/b", "sft@a/b") is not None
    for name, technique in (("sft@a_b", "sft@a_b"), ("sft@a/b", "given")):
        with pytest.raises(UserError, match="kept in one folder") as caught:
            here.kept(name, technique)
        assert "another name" in caught.value.remedy


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_what_lost_its_answers_to_the_test_rows_is_done_again(tmp_path: Path, damage: str, taught: list[Run]) -> None:
    first = compared(tmp_path, "constant", "base", "best_of")
    path = tmp_path / "candidates" / "base" / "test.jsonl"
    path.unlink() if damage == "gone" else path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="not a whole evaluation") as caught:
        read(tmp_path)
    assert "--resume" in caught.value.remedy
    before = len(taught)
    second = compared(tmp_path, "constant", "base", "best_of")
    assert [run.folder.parent.name for run in taught[before:]] == ["base"], "and nothing else"
    assert f"base is done again: not a whole evaluation of this version ({path})" in second.notes
    assert [each.score for each in second.candidates] == [each.score for each in first.candidates]
    assert read(tmp_path).candidate("base").score == first.candidate("base").score


def test_adapters_are_freed_once_they_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    drop = ToyPolicy.drop

    def counted(policy: ToyPolicy) -> None:
        dropped.append(policy.name)
        drop(policy)

    monkeypatch.setattr(ToyPolicy, "drop", counted)
    compared(tmp_path, "base", "sft")
    assert dropped.count("toy-sft") == 1 + 2 + 2, "itself, two seeds, two points of the curve"
    assert read_json(tmp_path / "candidates" / "sft" / "saved" / "candidate.json")["adapter"]


# ---- what a hosted request costs

def test_requests_that_failed_do_not_make_the_others_cheaper() -> None:
    prices = Prices(input_per_million=1e6, output_per_million=0)
    whole = evaluation("hosted", [True] * 4)
    broken = replace(whole, attempts=(
        *(replace(attempt, prompt_tokens=100) for attempt in whole.attempts[:2]),
        *(replace(attempt, prompt_tokens=0, error="policy: timed out") for attempt in whole.attempts[2:])))
    cost = benches._hosted(prices, broken)
    assert cost is not None and cost.per_request == pytest.approx(100) and len(cost.rows) == 2
    assert benches._hosted(prices, replace(broken, attempts=broken.attempts[2:])) is None


# ---- what the table says of training runs

def test_training_runs_are_said_as_they_were() -> None:
    def changed(found: CandidateResult) -> CandidateResult:
        return replace(found, training_runs=3, seed_scores=(0.71, 0.6)) if found.name == "retrieval+sft" else found

    found = comparison()
    lines = table.training_runs(replace(found, candidates=tuple(map(changed, found.candidates))))
    assert lines == ["One training run: sft+grpo.",
                     "2 of 3 training runs of retrieval+sft learnt something: 71, 60 %.",
                     "3 training runs of sft: 64, 62, 66 %."]


def test_the_curves_of_a_chain_are_told_apart_and_come_in_its_order(tmp_path: Path) -> None:
    made = bench(tmp_path)
    learnt = asyncio.run(made.taught("sft+dpo", "sft+dpo", start(), None))
    records = asyncio.run(made.judged("sft+dpo", "sft+dpo", learnt, 1.0)).curves
    order = [record["technique"] for record in records]
    assert order == sorted(order, key=["sft", "dpo"].index) and set(order) == {"sft", "dpo"}
    first, second = ([r["step"] for r in records if r["technique"] == link and "loss" in r] for link in ("sft", "dpo"))
    assert first == sorted(set(first)) and second == sorted(set(second)), "the steps of each begin anew"
