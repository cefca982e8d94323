"""A whole comparison on a toy: what is written, what is kept when it is stopped, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain import graders
from posttrain.candidates.given import GivenCandidate
from posttrain.comparison.compare import Listener, compare, read
from posttrain.comparison.conclude import Settings
from posttrain.comparison.estimate import CLOSING_SECONDS, Forecast
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.engines.chat_api import ChatApiPolicy
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Budget, DiskError, Progress, Run, read_json
from posttrain.techniques import _chain as chain
from posttrain.types import LearntNothing, Message, Output, Policy, Row, Score, Task, UserError

WORDS = {"positive": ("good", "great", "fine", "lovely"), "negative": ("bad", "awful", "poor", "nasty")}
ALL = ("constant", "nearest", "linear", "base", "few_shot", "sft")


def reviews(train: int = 40) -> Task:
    draw, rows = random.Random(0), []
    for i in range(train + 60):
        label = draw.choice(list(WORDS))
        words = [*draw.choices(WORDS[label], k=2), *draw.choices(("the", "a", "of", "it"), k=3)]
        rows.append(Row(str(i), (Message("user", " ".join(draw.sample(words, len(words)))),), label,
                        answer=draw.choice(list(WORDS)), slices=(label,)))
    splits = {"train": tuple(rows[:train]), "dev": tuple(rows[train:train + 20]), "test": tuple(rows[train + 20:])}
    return Task("reviews", "1", "0123456789abcdef", "Is it positive?", splits, graders.load("exact", {}),
                Output(labels=tuple(WORDS)))


class Hearing:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.results: list[CandidateResult] = []
        self.said: list[str] = []
        self.listener = Listener(lambda result, _: self.results.append(result), self.said.append)


def run_one(task: Task, folder: Path, candidates: tuple[str, ...] = ALL, *,
            policies: Mapping[str, Policy] | None = None, hearing: Hearing | None = None, given: bool = False,
            budget: Budget = Budget(), latency: bool = False) -> ComparisonResult:
    policies = {"toy": ToyPolicy.open_for(task)} if policies is None else policies
    systems = [GivenCandidate.of("yours", task.rows("test"))] if given else []
    return asyncio.run(compare(task, policies, Run(folder, budget=budget), Settings(candidates, latency=latency),
                               given=systems, listener=(hearing or Hearing()).listener))


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


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The expressions that were taught, as they are: teaching goes on as ever."""
    seen: list[str] = []
    teach = chain.teach

    async def watched(expression: str, *rest: Any, **more: Any) -> Any:
        seen.append(expression)
        return await teach(expression, *rest, **more)

    monkeypatch.setattr(chain, "teach", watched)
    return seen


def test_what_is_finished_is_not_done_again(tmp_path: Path, taught: list[str]) -> None:
    task = reviews()
    first = run_one(task, tmp_path / "run", ("constant", "base", "sft"))
    done = taught.copy()
    assert done[:3] == ["constant", "base", "sft"]
    files = {path: path.read_bytes() for path in (tmp_path / "run" / "candidates").rglob("test.jsonl")}
    second = run_one(task, tmp_path / "run", ("constant", "base", "sft"))
    parts = sum(took for part, took in (first.timings or {}).items() if ": " in part)
    assert second.actual_seconds is not None and second.actual_seconds > parts, "what it took the first time"
    assert taught == done, "nothing was taught again"
    assert [(found.name, found.score, found.training_seconds) for found in first.candidates] == [
        (found.name, found.score, found.training_seconds) for found in second.candidates]
    assert all(path.read_bytes() == content for path, content in files.items())
    run_one(task, tmp_path / "run", ("constant", "base", "sft", "few_shot"))
    assert [name for name in taught[len(done):] if name != "constant"] == ["few_shot"], "only what is new"


class Stop(Exception):
    """The user's Ctrl-C, at a moment of our choice."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ComparisonResult:
    """A comparison that nobody stopped."""
    return run_one(reviews(), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("moment", ["base: dev rows", "few_shot: sets", "sft: epoch", "sft: test rows"])
def test_a_comparison_stopped_anywhere_goes_on(
        tmp_path: Path, moment: str, taught: list[str], whole: ComparisonResult) -> None:
    task = reviews()

    def stop(progress: Progress) -> None:
        if progress.description.startswith(moment) and (progress.done > 0 or moment.endswith("rows")):
            raise Stop

    stopped = Run(tmp_path / "stopped", on_progress=stop)
    with pytest.raises(Stop):
        asyncio.run(compare(task, {"toy": ToyPolicy.open_for(task)}, stopped, Settings(ALL, latency=False)))
    with pytest.raises(UserError, match="--resume"):
        read(tmp_path / "stopped")
    finished = {path.parent.name for path in (tmp_path / "stopped").glob("candidates/*/result.json")}
    before = len(taught)
    resumed = run_one(task, tmp_path / "stopped")
    assert not finished & set(taught[before:]) - {"constant", "nearest", "linear"}  # floors: learning curves
    assert [(found.name, found.score) for found in resumed.candidates] == [
        (found.name, found.score) for found in whole.candidates]
    assert [comparison.p_value for comparison in resumed.comparisons] == [
        comparison.p_value for comparison in whole.comparisons]


KILLED = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_compare as t
t.run_one(t.reviews(), Path(sys.argv[2]), t.ALL)
"""


def test_a_killed_comparison_goes_on_to_the_same_end(tmp_path: Path, whole: ComparisonResult) -> None:
    """kill -9 as soon as the base model is judged."""
    folder, here = tmp_path / "killed", str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", KILLED, here, str(folder)], stderr=subprocess.DEVNULL,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (folder / "candidates" / "base" / "result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.read_bytes() for path in folder.glob("candidates/*/test.jsonl")
            if (path.parent / "result.json").exists()}
    assert kept and not (folder / "report.json").exists()
    resumed = run_one(reviews(), folder)
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert [(found.name, found.score) for found in resumed.candidates] == [
        (found.name, found.score) for found in whole.candidates]
    assert not list(folder.rglob("*.tmp")) or (folder / "report.html").exists()


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


def test_two_models_are_told_apart_and_estimated_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, hearing = reviews(), Hearing()
    monkeypatch.setattr("posttrain.comparison.compare.forecast", forecast_of_a_minute)
    policies = {"one": ToyPolicy.open_for(task, seed=0), "two": ToyPolicy.open_for(task, seed=1)}
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
