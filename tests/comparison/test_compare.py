"""A whole comparison on a toy: what is written, what is refused and what is left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_comparison import ALL, Hearing, Stop, reviews, run_one

from posttrain.comparison.compare import compare, read
from posttrain.comparison.conclude import Settings
from posttrain.comparison.estimate import Forecast
from posttrain.engines.chat_api import ChatApiPolicy
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Budget, DiskError, Progress, Run, read_json
from posttrain.techniques import _chain as chain
from posttrain.types import Completion, LearntNothing, Row, Score, Task, UserError


def test_a_comparison_writes_its_report(tmp_path: Path) -> None:
    task, hearing = reviews(), Hearing()
    result = run_one(task, tmp_path / "run", hearing=hearing, given=True, latency=True)
    assert [found.name for found in result.candidates] == ["yours", *ALL]
    assert [found.name for found in hearing.results][:7] == ["yours", *ALL]
    scores = {found.name: found.score for found in result.candidates}
    assert scores["linear"] > scores["constant"] and all(found.evaluation.n == 40 for found in result.candidates)
    assert all(found.latency is not None for found in result.candidates if found.kind != "given")
    assert {found.kind for found in result.candidates} == {"given", "floor", "prompt", "weights"}

    report = read_json(tmp_path / "run" / "report.json")
    verdicts = {entry["name"]: entry["requests_to_break_even"]["verdict"] for entry in report["candidates"]}
    assert verdicts.pop("yours") == "nothing to pay back" and set(verdicts.values()) == {"not known: no price stated"}
    assert report["schema"] and task.hash in json.dumps(report)
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<html" in html and all(name in html for name in ALL)
    for name in ALL:
        folder = tmp_path / "run" / "candidates" / name
        assert {path.name for path in folder.iterdir()} >= {"result.json", "dev.jsonl", "test.jsonl", "saved"}
    again = read(tmp_path / "run")
    assert [(found.name, found.score) for found in again.candidates] == [
        (found.name, found.score) for found in result.candidates]
    assert again.recommendation == result.recommendation and again.comparisons == result.comparisons


class HalfAlike:
    """Grades half for the right length, half for the right word; passes when both are."""

    async def grade(self, row: Row, answer: str) -> Score:
        grade = 0.5 * (len(answer) == len(str(row.target))) + 0.5 * (answer == row.target)
        return Score(grade, grade == 1)


def test_a_task_scored_by_grade_is_compared_by_its_mean(tmp_path: Path) -> None:
    task = replace(reviews(), scored_by="grade", grader=HalfAlike())
    result = run_one(task, tmp_path / "run", ("constant", "linear", "base", "few_shot"))
    assert all(found.score > 0.5 for found in result.candidates), "labels are of one length"
    assert {found.test for found in result.comparisons} == {"paired bootstrap, Holm"}
    assert "mean grade of" in result.recommendation.reason
    assert result.detectable_difference is not None and 0 < result.detectable_difference < 0.5
    assert read_json(tmp_path / "run" / "report.json")["scored_by"] == "grade"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The score is the mean grade of the rows." in page and 'class="number">grade</th>' in page
    again = read(tmp_path / "run")
    assert again.scored_by == "grade" and again.comparisons == result.comparisons


def test_on_a_language_model_too(tiny_model_folder: Path, tmp_path: Path) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    try:
        result = run_one(reviews(16), tmp_path, ("base", "knn_few_shot", "sft"), policies={"tiny": engine.base()})
        assert [found.name for found in result.candidates] == ["base", "knn_few_shot", "sft"]
        assert (tmp_path / "candidates" / "sft" / "saved" / "adapter" / "adapter_config.json").exists()
        assert result.estimate_seconds and result.actual_seconds
        assert result.estimate_memory_bytes > 1e8
        assert 0.5 < result.actual_memory_bytes / result.estimate_memory_bytes < 2
    finally:
        engine.close()


class SlowPolicy(ToyPolicy):
    """Takes time that is noted: the parts of a toy's comparison round to no hundredth of a second on a fast machine."""

    async def sample(self, *asked: Any, **how: Any) -> list[list[Completion]]:
        await asyncio.sleep(0.02)
        return await super().sample(*asked, **how)


def test_two_models_are_told_apart_and_estimated_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, hearing = reviews(), Hearing()
    monkeypatch.setattr("posttrain.comparison.compare.forecast", forecast_of_a_minute)
    policies = {"one": SlowPolicy.open_for(task, seed=0), "two": SlowPolicy.open_for(task, seed=1)}
    result = run_one(task, tmp_path, ("constant", "base"), policies=policies, hearing=hearing)
    assert [found.name for found in result.candidates] == ["constant", "base@one", "base@two"]
    (estimate,) = [said for said in hearing.said if "Ctrl-C" in said]
    assert estimate.startswith("3 min, ") and result.estimate_seconds == 3 * 60
    resumed = run_one(task, tmp_path, ("constant", "base", "few_shot"), policies=policies, hearing=hearing)
    assert hearing.said[-1].startswith("2 min, "), "what is finished takes no time"
    finished = sum(took for part, took in (resumed.timings or {}).items() if part.split(":")[0] in ("base@one", "base@two"))
    assert resumed.estimate_seconds and resumed.estimate_seconds >= 2 * 60 + finished > 2 * 60, "and is in the estimate as it was"


async def forecast_of_a_minute(*_: Any, **__: Any) -> Forecast:
    return Forecast(40, 20)


def test_the_estimate_counts_what_is_trained_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.comparison.compare.forecast", forecast_of_a_minute)
    result = run_one(reviews(), tmp_path, ("base", "sft"))
    assert result.candidate("sft").training_runs == 3 and len(result.candidate("sft").learning_curve) == 3
    assert result.estimate_seconds == pytest.approx(2 * 60 + 2.75 * 40)


def test_without_a_model_there_are_floors(tmp_path: Path) -> None:
    result = run_one(reviews(), tmp_path, (), policies={}, given=True)
    assert [found.name for found in result.candidates] == ["yours", "constant", "nearest", "linear"]


# ---- what is refused, and what is left out

def test_an_unknown_candidate_is_refused_before_anything_is_taught(tmp_path: Path, taught: list[str]) -> None:
    with pytest.raises(UserError, match="did you mean 'sft'"):
        run_one(reviews(), tmp_path, ("base", "sftt"))
    assert not taught


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_missing_rows_are_refused_by_name(tmp_path: Path, split: str) -> None:
    task = reviews()
    with pytest.raises(UserError, match=f"no {split} rows") as caught:
        run_one(replace(task, splits={**task.splits, split: ()}), tmp_path, ("base",))
    assert caught.value.remedy


def test_an_endpoint_cannot_be_trained(tmp_path: Path) -> None:
    endpoint = ChatApiPolicy.open("chat:http://127.0.0.1:9/v1#nobody")
    with pytest.raises(UserError, match="sft would train") as caught:
        run_one(reviews(), tmp_path, ("base", "sft"), policies={"remote": endpoint})
    assert caught.value.place == "--candidates"


def test_a_candidate_asked_for_that_cannot_be_taught_is_an_error_and_a_default_one_a_note(tmp_path: Path) -> None:
    task = reviews()
    rows = tuple(replace(row, target=None) for row in task.rows("train")[:1]) + task.rows("train")[1:]
    unlabelled = replace(task, splits={**task.splits, "train": rows})
    with pytest.raises(UserError, match="no target"):
        run_one(unlabelled, tmp_path / "asked", ("base", "sft"))
    hearing = Hearing()
    result = run_one(unlabelled, tmp_path / "default", (), hearing=hearing)
    assert "sft" not in [found.name for found in result.candidates]
    assert any("sft left out: a row to learn from has no target" in note for note in (*result.notes, *hearing.said))


@pytest.fixture
def refuses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`refuses("sft", error)`: teaching sft ends with this error, the first `spared` times excepted."""

    def let_refuse(refused: str, error: UserError, spared: int = 0) -> None:
        teach, asked = chain.teach, [spared]

        async def refusing(expression: str, *given: Any, **settings: Any) -> Any:
            if expression == refused:
                asked[0] -= 1
                if asked[0] < 0:
                    raise error
            return await teach(expression, *given, **settings)

        monkeypatch.setattr(chain, "teach", refusing)

    return let_refuse


def test_why_a_candidate_is_left_out_is_said_with_its_place_and_remedy(tmp_path: Path, refuses: Callable[..., None]) -> None:
    refuses("sft", UserError("a row is too long", place="train.jsonl:7", remedy="shorten it"))
    notes = run_one(reviews(), tmp_path, ()).notes
    assert "sft left out: a row is too long (train.jsonl:7); shorten it" in notes


@pytest.mark.parametrize("spared", [0, 1])
def test_a_full_disk_ends_the_comparison(tmp_path: Path, refuses: Callable[..., None], spared: int) -> None:
    """Also while what is finished is only trained once more: no report could be written either."""
    refuses("sft", DiskError("cannot write: no space left", place="runs", remedy="free some"), spared)
    with pytest.raises(DiskError):
        run_one(reviews(), tmp_path, ())
    assert (tmp_path / "candidates" / "base" / "result.json").exists()


def test_a_task_without_targets_can_be_compared(tmp_path: Path) -> None:
    task = reviews()
    rows = tuple(replace(row, target=None) for row in task.rows("train"))
    result = run_one(replace(task, splits={**task.splits, "train": rows}), tmp_path, ("base", "best_of"))
    assert [found.name for found in result.candidates] == ["base", "best_of"]


def test_a_curve_that_cannot_be_drawn_does_not_cost_the_report(tmp_path: Path) -> None:
    task = reviews()
    rows = tuple(replace(row, target=None) for row in task.rows("train")[:10]) + task.rows("train")[10:]
    result = run_one(replace(task, splits={**task.splits, "train": rows}), tmp_path, ("nearest",), policies={})
    assert (tmp_path / "report.json").exists() and [found.name for found in result.candidates] == ["nearest"]


def test_the_uses_of_a_test_split_are_counted(tmp_path: Path) -> None:
    uses = [run_one(reviews(), tmp_path / name, ("constant",), policies={}).test_uses for name in ("a", "b", "b", "c")]
    assert uses == [1, 2, 2, 3]
    assert list(json.loads((tmp_path / "test_uses.json").read_text()).values()) == [["a", "b", "c"]]


def test_a_use_of_a_test_split_counts_once_its_rows_are_answered(tmp_path: Path) -> None:
    task = reviews()

    def stop(progress: Progress) -> None:
        if progress.description.startswith("constant: test rows"):
            raise Stop

    stopped = Run(tmp_path / "stopped", on_progress=stop)
    with pytest.raises(Stop):
        asyncio.run(compare(task, {}, stopped, Settings(("constant",), latency=False)))
    taught_another = replace(task, hash="fedc", splits={**task.splits, "train": task.rows("train")[1:]})
    assert run_one(taught_another, tmp_path / "b", ("constant",), policies={}).test_uses == 2, "the same test rows"
    tested_another = replace(task, splits={**task.splits, "test": task.rows("test")[1:]})
    assert run_one(tested_another, tmp_path / "c", ("constant",), policies={}).test_uses == 1


def test_a_seed_that_learns_nothing_does_not_cost_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach = chain.teach

    async def unlucky(expression: str, start: Any, task: Task, run: Run, **settings: Any) -> Any:
        if run.seed == 1:
            raise UserError("sft learnt nothing: a seed that fails", place=str(run.folder))
        return await teach(expression, start, task, run, **settings)

    monkeypatch.setattr(chain, "teach", unlucky)
    result = run_one(reviews(), tmp_path, ("base", "sft"))
    trained = result.candidate("sft")
    assert (trained.training_runs, len(trained.seed_scores)) == (3, 2), "it was a training run, and has no score"
    assert any("sft, seed 1: sft learnt nothing" in note for note in result.notes)


def test_floors_have_their_learning_curve_however_short_the_time(tmp_path: Path) -> None:
    result = run_one(reviews(), tmp_path, ("nearest", "linear"), policies={}, budget=Budget(minutes=1e-6))
    assert all(len(found.learning_curve) == 3 for found in result.candidates)


def test_what_learns_nothing_is_a_finding_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach = chain.teach

    async def vain(expression: str, *given: Any, **settings: Any) -> Any:
        if expression == "sft":
            raise LearntNothing("sft learnt nothing: the loss went up")
        return await teach(expression, *given, **settings)

    monkeypatch.setattr(chain, "teach", vain)
    result = run_one(reviews(), tmp_path, ("base", "sft"))
    assert [found.name for found in result.candidates] == ["base"]
    assert any("sft left out: sft learnt nothing" in note for note in result.notes)
