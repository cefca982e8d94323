"""Jobs that are paused, cancelled, or whose worker or server is killed: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from databases import DATABASES, database
from service import Service, service

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"number {i % 10}"}]}
    for i in range(120)
]
GOING_ON = "Going on from the last checkpoint"
METHOD = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6, "batch_size": 2}}}


def weights(data: Path, job: str) -> str:
    """SHA-256 of the adapter that the job's last worker made."""
    [*_, last] = sorted((data / "jobs" / job).glob("attempt-*/*/saved/adapter/adapter_model.safetensors"))
    return hashlib.sha256(last.read_bytes()).hexdigest()


def begun(found: Service, **asked: Any) -> str:
    return found.job(ROWS, validation=ROWS[:8], seed=3, method=METHOD, **asked).id


def steps(found: Service, job: str) -> list[int]:
    """The steps that were told, in order."""
    events = list(found.client.fine_tuning.jobs.list_events(job, limit=100))[::-1]
    return [event.data["step"] for event in events if event.data and "train_loss" in event.data]  # type: ignore[index]


def workers(found: Service) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"] and process.info["cmdline"][-3:-1] == ["posttrain.api.working", str(found.data)]]


@pytest.fixture(scope="module")
def undisturbed(tiny_service: Service) -> str:
    """The weights of a job that nothing happened to."""
    job = tiny_service.ended(begun(tiny_service))
    assert job.status == "succeeded", tiny_service.log()
    assert steps(tiny_service, job.id) == [*range(1, 361)]
    return weights(tiny_service.data, job.id)


def test_a_paused_job_goes_on_to_the_same_weights(tiny_service: Service, undisturbed: str) -> None:
    jobs, job = tiny_service.client.fine_tuning.jobs, begun(tiny_service)
    tiny_service.until(lambda: steps(tiny_service, job), lambda done: len(done) > 70)
    assert jobs.pause(job).status == "paused"
    tiny_service.until(lambda: workers(tiny_service), lambda found: not found)
    done = steps(tiny_service, job)
    assert jobs.retrieve(job).status == "paused" and len(done) < 360
    assert jobs.resume(job).status == "queued"
    assert tiny_service.ended(job).status == "succeeded", tiny_service.log()
    assert steps(tiny_service, job) == [*range(1, 361)], "each step is told once"
    assert GOING_ON in tiny_service.events(job)
    assert weights(tiny_service.data, job) == undisturbed


def test_a_killed_worker_is_followed_by_another(tiny_service: Service, undisturbed: str) -> None:
    job = begun(tiny_service)
    for more in (10, 150):
        tiny_service.until(lambda: steps(tiny_service, job), lambda done, more=more: len(done) > more)
        for worker in workers(tiny_service):
            worker.send_signal(signal.SIGKILL)
    assert tiny_service.ended(job).status == "succeeded", tiny_service.log()
    assert steps(tiny_service, job) == [*range(1, 361)]
    assert weights(tiny_service.data, job) == undisturbed


def test_a_worker_that_stands_still_is_replaced(tiny_service: Service, undisturbed: str) -> None:
    job = begun(tiny_service)
    tiny_service.until(lambda: steps(tiny_service, job), lambda done: len(done) > 20)
    [stuck] = workers(tiny_service)
    stuck.suspend()
    assert tiny_service.ended(job).status == "succeeded", tiny_service.log()
    assert not stuck.is_running() and weights(tiny_service.data, job) == undisturbed


def test_a_cancelled_job_stays_cancelled(tiny_service: Service) -> None:
    jobs, job = tiny_service.client.fine_tuning.jobs, begun(tiny_service)
    tiny_service.until(lambda: steps(tiny_service, job), bool)
    assert jobs.cancel(job).status == "cancelled"
    tiny_service.until(lambda: workers(tiny_service), lambda found: not found)
    ended = jobs.retrieve(job)
    assert ended.status == "cancelled" and ended.fine_tuned_model is None and ended.finished_at
    assert tiny_service.events(job)[-1] == "The job was cancelled"


def test_a_job_goes_on_when_the_server_ends_and_starts_anew(tiny_model_folder: Path, tmp_path: Path) -> None:
    with service(tiny_model_folder, tmp_path / "data") as first:
        job = begun(first)
        first.until(lambda: steps(first, job), lambda done: len(done) > 5)
    assert not workers(first), "an orderly end takes them along"
    with service(tiny_model_folder, tmp_path / "data") as second:
        ended = second.ended(job)
        assert ended.status == "succeeded", second.log()
        assert steps(second, job) == [*range(1, 361)]
        assert second.answer(ended.fine_tuned_model or "", "What is 3?").startswith("number")


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.mark.parametrize("kind", DATABASES)
def test_killing_the_server_loses_nothing_that_was_accepted(
        tiny_model_folder: Path, tmp_path: Path, undisturbed: str, kind: str) -> None:
    """Its workers go on without it; what it had said yes to is there when it is back."""
    with database(kind) as url:
        _kill_it_again_and_again(tiny_model_folder, tmp_path / "data", ("--database", url), undisturbed)


def _kill_it_again_and_again(model: Path, data: Path, options: tuple[str, ...], undisturbed: str) -> None:
    chance = random.Random(7)
    files, job = [], ""
    for _ in range(2):
        with service(model, data, *options) as found:
            job = job or begun(found)
            for _ in range(chance.randrange(1, 4)):
                files.append(found.upload(ROWS[: chance.randrange(12, 60)]))
            kill(found.process)
    with service(model, data, *options) as last:
        assert {*files} <= {file.id for file in last.client.files.list()}
        assert all(last.client.files.content(file).content for file in files)
        assert last.ended(job).status == "succeeded", last.log()
        assert steps(last, job) == [*range(1, 361)]
        assert weights(last.data, job) == undisturbed


def test_a_worker_that_was_only_slow_can_write_nothing_more(
        tiny_model_folder: Path, tmp_path: Path, undisturbed: str) -> None:
    """Its server is gone, and it stands still for longer than its lease; then it goes on beside its successor."""
    with service(tiny_model_folder, tmp_path / "data") as first:
        job = begun(first)
        first.until(lambda: steps(first, job), lambda done: len(done) > 60)
        [slow] = workers(first)
        slow.suspend()
        kill(first.process)
    with service(tiny_model_folder, tmp_path / "data") as second:
        second.until(lambda: second.events(job), lambda said: GOING_ON in said)
        slow.resume()
        assert second.ended(job).status == "succeeded", second.log()
        assert slow not in workers(second) and steps(second, job) == [*range(1, 361)]
        assert weights(second.data, job) == undisturbed
        assert len(second.client.files.list(purpose="fine-tune-results").data) == 1, "it ended once"
