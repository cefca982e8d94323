"""How a job goes, told while it does: events, checkpoints, the time that is left; and the table at its end."""

from __future__ import annotations

import csv
import io
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Progress, read_json, read_lines, write_json
from posttrain.store import queue
from posttrain.store.opening import Store, new_id
from posttrain.store.queue import Claim, LeaseLost, held
from posttrain.store.tables import Job, Model
from posttrain.techniques._checkpoint import STATE

TICK_S = 1.0
"""How often a worker says how far it is, and sees whether the job is still its own."""

LOST = 3
"""The exit code of one whose job is not its own any more."""

OPENAI_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
COLUMNS = (*OPENAI_COLUMNS, "train_reward", "valid_score")
"""Of a job's metrics: OpenAI's, and two of ours."""


@dataclass
class Checkpoints:
    """Copies of a training's checkpoints, each a candidate that can be asked; `candidate` is what they are without
    their weights."""

    folder: Path
    candidate: PolicyCandidate
    newest: Path | None = None

    def keep(self, checkpoint: Path) -> tuple[int, Path] | None:
        """Its step and the copy; None when that was kept before, or nothing had been learnt."""
        if checkpoint == self.newest:
            return None
        self.newest = checkpoint
        step = int(read_json(checkpoint / STATE)["loop"]["step"])
        if not step:
            return None
        kept = self.folder / f"step-{step}"
        (kept / "adapter").mkdir(parents=True, exist_ok=True)
        for path in checkpoint.glob("adapter_*"):
            shutil.copy(path, kept / "adapter")
        write_json(kept / "candidate.json", self.candidate.described())
        return step, kept


class Reporter:
    """Says how a job goes while it does, and ends the process when the lease is lost."""

    def __init__(self, store: Store, claim: Claim, folder: Path) -> None:
        self.store, self.claim, self.folder = store, claim, folder
        self.checkpoints: Checkpoints | None = None
        self._lock = threading.Lock()
        self._said: list[str] = []
        self._kept: list[tuple[int, Path]] = []
        self._far: Progress | None = None
        self._began, self._first_done = time.time(), 0.0
        self._judged: set[int] = set()

    def hear(self, progress: Progress) -> None:
        """Of the run."""
        kept = self.checkpoints.keep(progress.checkpoint) if self.checkpoints and progress.checkpoint else None
        with self._lock:
            if kept:
                self._kept.append(kept)
            if progress.told:
                self._said.append(progress.told)
                return
            if self._far is None or progress.description != self._far.description:
                self._began, self._first_done = time.time(), progress.done
            self._far = progress

    def keep_last(self, run: Path) -> None:
        """The checkpoints that a training which has ended left: it told of no progress after them."""
        for state in sorted(run.rglob(f"checkpoints/*/{STATE}")):
            kept = self.checkpoints.keep(state.parent) if self.checkpoints else None
            if kept:
                with self._lock:
                    self._kept.append(kept)

    def say(self, sentence: str) -> None:
        with self._lock:
            self._said.append(sentence)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """In a thread of its own; the last of it when the block ends, however that is."""
        over = threading.Event()
        thread = threading.Thread(target=self._go_on, args=(over,), name="reporter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.report()

    def report(self) -> None:
        """Writes what is new, and renews the lease.  Raises LeaseLost."""
        with self._lock:
            said, kept, far = [*self._said], [*self._kept], self._far
        with held(self.store, self.claim) as (session, job):
            for sentence in said:
                queue.tell(session, job, sentence)
            for record in logged(self.folder):
                self._tell_step(session, job, record, far)
            for step, folder in kept:
                self._offer(session, job, step, folder)
            left = self._seconds_left(far)
            job.estimated_finish = None if left is None else int(time.time() + left)
        with self._lock:
            self._said, self._kept = self._said[len(said) :], self._kept[len(kept) :]

    def _go_on(self, over: threading.Event) -> None:
        while not over.wait(TICK_S):
            try:
                self.report()
            except LeaseLost:
                os._exit(LOST)  # whatever is being computed is nobody's any more
            except Exception:  # a database that is away for a moment
                traceback.print_exc()

    def _tell_step(self, session: Session, job: Job, record: Mapping[str, Any], far: Progress | None) -> None:
        """An event of a line of the log, unless there was one: a worker that goes on logs some steps again."""
        data = _metrics(record)
        step = data["step"]
        if data.keys() & {"train_loss", "train_reward"} and step > job.last_step:
            total = f"/{far.total:,.0f}" if far and far.total >= step else ""
            queue.tell(session, job, _line(step, total, data), data=data)
            job.last_step, job.lost = step, 0
        elif data.keys() & {"valid_loss", "valid_score"} and step not in self._judged:
            self._judged.add(step)
            if step >= job.last_step:
                queue.tell(session, job, _line(step, "", data), data=data)

    def _offer(self, session: Session, job: Job, step: int, folder: Path) -> None:
        """A checkpoint as a model that can be asked, unless an earlier worker has offered it."""
        name = f"{model_name(job)}:ckpt-step-{step}"
        if session.get(Model, name) is not None:
            return
        metrics: dict[str, Any] = {}
        for found in map(_metrics, logged(self.folder)):
            metrics |= found if found["step"] <= step else {}
        base = self.checkpoints.candidate.model if self.checkpoints else job.model
        made = made_model(job, name, base, folder.relative_to(self.store.folder), metrics)
        made.step, made.checkpoint = step, new_id("ftckpt_")
        session.add(made)
        queue.tell(session, job, f"Checkpoint created at step {step}")

    def _seconds_left(self, far: Progress | None) -> float | None:
        if far is None or far.done <= self._first_done or not far.total:
            return None
        return (time.time() - self._began) * (far.total - far.done) / (far.done - self._first_done)


def made_model(job: Job, name: str, base: str, folder: Path, metrics: Mapping[str, Any]) -> Model:
    """The row of a model that a job has made; `folder` is within the store's."""
    return Model(
        name=name,
        organisation=job.organisation,
        created_at=int(time.time()),
        job=job.id,
        metrics=dict(metrics),
        base=base,
        folder=str(folder),
    )


def model_name(job: Job) -> str:
    """ft:BASE:ORGANISATION:SUFFIX:EIGHT"""
    base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model.rstrip("/").rpartition("/")[2]
    return f"ft:{base}:{job.organisation}:{job.suffix or ''}:{job.id[-8:]}"


def logged(folder: Path) -> list[dict[str, Any]]:
    """What trainings in a run's folder logged, in the order of their steps."""
    found = [record for path in sorted(folder.rglob("metrics.jsonl")) for record in read_lines(path)]
    return sorted((record for record in found if "step" in record), key=lambda record: record["step"])


def _metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a run's log, by the names of the API."""
    names = {"loss": "train_loss", "reward": "train_reward", "judged_loss": "valid_loss"}
    names |= {"judged_score": "valid_score", "dev_score": "valid_score"}
    found = {theirs: record[ours] for ours, theirs in names.items() if record.get(ours) is not None}
    done = record["step"] + ("reward" in record)  # grpo counts the steps before the one at hand
    return {"step": done} | found


def _line(step: int, total: str, data: Mapping[str, Any]) -> str:
    words = {"train_loss": "training loss", "train_reward": "reward", "valid_loss": "validation loss"}
    words["valid_score"] = "validation score"
    said = ", ".join(f"{word}={data[name]:.3f}" for name, word in words.items() if name in data)
    return f"Step {step}{total}: {said}"


def table(records: list[dict[str, Any]]) -> bytes:
    """Metrics as CSV, a line a step."""
    steps: dict[int, dict[str, Any]] = {}
    for record in records:
        found = _metrics(record)
        steps.setdefault(found["step"], {}).update(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(steps[step] for step in sorted(steps))
    return text.getvalue().encode()
