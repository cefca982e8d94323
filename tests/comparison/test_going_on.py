"""A comparison that was stopped, killed or done goes on, and does nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_comparison import ALL, Stop, reviews, run_one

from posttrain.comparison.compare import compare, read
from posttrain.comparison.conclude import Settings
from posttrain.comparison.results import ComparisonResult
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Progress, Run
from posttrain.types import UserError


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
import small_comparison as t
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
