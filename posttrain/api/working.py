"""A worker: a process of its own that takes one job, teaches it, and ends.

    python -m posttrain.api.working FOLDER          # the database's URL is in $POSTTRAIN_DATABASE

It holds a lease while it works (posttrain/store/queue.py), and ends on the spot when it has lost that: the job was
paused, cancelled, or given to another.  A job that was worked on before goes on from its last checkpoint.

    jobs/ID/task           what is taught, made once
    jobs/ID/attempt-TOKEN  what one worker wrote: a run of `teach`; the next begins with a copy
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from posttrain import tasks
from posttrain.api.engines import DATABASE
from posttrain.api.teaching import RESULT, go_on, teach
from posttrain.runs import Progress, read_json, read_lines
from posttrain.server.methods import Teaching, teaching
from posttrain.store import files, queue
from posttrain.store.opening import Store, open_store
from posttrain.store.queue import Claim, LeaseLost, claim, held
from posttrain.store.tables import Job, Model
from posttrain.tasks import uploaded
from posttrain.types import LearntNothing, Task, UserError

TICK_S = 1.0
"""How often a worker says how far it is, and sees whether the job is still its own."""

LOST = 3
"""The exit code of one whose job is not its own any more."""

OPENAI_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
COLUMNS = (*OPENAI_COLUMNS, "train_reward", "valid_score")
"""Of a job's metrics: OpenAI's, and two of ours."""


def main() -> None:
    """Works on the next job, if there is any."""
    store = open_store(Path(sys.argv[1]), os.environ.get(DATABASE, ""))
    found = claim(store)
    if found is not None:
        Worker(store, found).work()
    store.close()


@dataclass
class Worker:
    """One lease of one job."""

    store: Store
    claim: Claim
    reporter: Reporter = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.store.folder / "jobs" / self.claim.job
        self.attempt = self.folder / f"attempt-{self.claim.token:04}"
        self.reporter = Reporter(self.store, self.claim, self.attempt)

    def work(self) -> None:
        """Teaches, and writes down what came of it."""
        signal.signal(signal.SIGTERM, self._give_back)
        try:
            with self.reporter.reporting():
                learnt = self._learn()
            self._succeed(*learnt)
        except LeaseLost:
            sys.exit(LOST)
        except UserError as error:
            code = "learnt_nothing" if isinstance(error, LearntNothing) else "training_failed"
            self._fail(code, " ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc()
            self._fail("server_error", f"{type(error).__name__}: {error}")

    def _learn(self) -> tuple[Path, Mapping[str, Any]]:
        """The run that taught the job, and its result."""
        with self.store.reading() as session:
            job = session.get_one(Job, self.claim.job)
            source = session.get(Model, job.model)
        task = self._task(job)
        plan = teaching(job.method, len(task.rows("train")))
        self._tell_numbers(plan)
        begun = self._last_run()
        if begun is None:
            model = str(self.store.folder / source.folder) if source else job.model
            taught = teach(
                plan.technique,
                task,
                model=model,
                minutes=job.asked.get("minutes"),
                runs=self.attempt,
                seed=job.seed,
                settings=plan.settings,
                on_progress=self.reporter.hear,
            ).folder
        elif (begun / RESULT).exists():  # it had ended, and could not say so
            taught = begun
        else:
            self.reporter.say("Going on from the last checkpoint")
            taught = go_on(begun, runs=self.attempt, on_progress=self.reporter.hear).folder
        return taught, read_json(taught / RESULT)

    def _task(self, job: Job) -> Task:
        """The job's task, made when it was not before."""
        folder = self.folder / "task"
        if not (folder / "task.toml").exists():
            method = job.method["type"]
            given = [job.training_file, *([job.validation_file] if job.validation_file else [])]
            rows = [uploaded.read(files.path_of(self.store, file), method) for file in given]
            grader = job.method["reinforcement"]["grader"] if method == "reinforcement" else None
            unnamed = folder.with_name(f"task-{self.claim.token:04}")
            task = uploaded.write(unnamed, rows[0], rows[1] if len(rows) > 1 else [], grader=grader, seed=job.seed)
            for note in task.notes:
                self.reporter.say(note)
            unnamed.replace(folder)
        return tasks.load(folder)

    def _last_run(self) -> Path | None:
        """A copy of the run that an earlier worker has left, if there is one: that one may still be writing."""
        for earlier in sorted(self.folder.glob("attempt-*"), reverse=True):
            runs = [path.parent for path in earlier.glob("*/config.json")]
            if earlier == self.attempt or not runs:
                continue
            copy = self.attempt / runs[0].name
            for _ in range(10):  # a checkpoint may go while it is copied
                shutil.rmtree(copy, ignore_errors=True)
                try:
                    return Path(shutil.copytree(runs[0], copy))
                except shutil.Error:
                    time.sleep(0.2)
        return None

    def _tell_numbers(self, plan: Teaching) -> None:
        with held(self.store, self.claim) as (session, job):
            method = dict(job.method)
            kind = method["type"]
            asked = method[kind]["hyperparameters"]
            method[kind] = method[kind] | {"hyperparameters": asked | plan.chosen}
            job.method = method
            if self.claim.token == 1:
                queue.tell(session, job, "Fine-tuning job started")

    def _succeed(self, run: Path, result: Mapping[str, Any]) -> None:
        table = _table(read_lines_below(run))
        file, size = files.write(self.store, [table])
        saved = run / "saved"
        training = read_json(saved / "candidate.json")["details"].get("training", {})
        with held(self.store, self.claim) as (session, job):
            name = model_name(job)
            folder = str(saved.relative_to(self.store.folder))
            metrics = {"before": result["before"], "after": result["after"], "scored_by": result["scored_by"]}
            session.add(
                Model(
                    name=name,
                    organisation=job.organisation,
                    created_at=int(time.time()),
                    job=job.id,
                    metrics=metrics,
                    base=read_json(saved / "candidate.json")["model"],
                    folder=folder,
                )
            )
            files.add(
                session,
                file,
                organisation=job.organisation,
                filename="step_metrics.csv",
                purpose="fine-tune-results",
                size=size,
            )
            job.fine_tuned_model, job.result_files = name, [file]
            job.trained_tokens = int(training.get("trained_tokens", 0))
            before, after = result["before"], result["after"]
            held_out = f"Score on {result['n']:,} held-out rows: {before:.3f} before, {after:.3f} after"
            queue.tell(session, job, held_out)
            for note in result["notes"]:
                queue.tell(session, job, note, level="warn")
            queue.tell(session, job, f"New fine-tuned model created: {name}")
            queue.tell(session, job, "The job has successfully completed")
            queue.end(job, queue.SUCCEEDED)

    def _fail(self, code: str, message: str) -> None:
        try:
            with held(self.store, self.claim) as (session, job):
                job.error = {"code": code, "message": message, "param": None}
                queue.tell(session, job, message, level="error")
                queue.end(job, queue.FAILED)
        except LeaseLost:
            sys.exit(LOST)

    def _give_back(self, _: int, __: FrameType | None) -> None:
        """The service ends: the job waits for the next one."""
        try:
            with held(self.store, self.claim) as (_session, job):
                queue.end(job, queue.QUEUED)
        except LeaseLost:
            pass
        os._exit(0)


class Reporter:
    """Says how a job goes while it does, and ends the process when the lease is lost."""

    def __init__(self, store: Store, claim: Claim, folder: Path) -> None:
        self.store, self.claim, self.folder = store, claim, folder
        self.lock = threading.Lock()
        self.said: list[str] = []
        self.far: Progress | None = None
        self.began = time.time()
        self.first_done = 0.0
        self.told_steps: set[int] = set()

    def hear(self, progress: Progress) -> None:
        """Of the run."""
        with self.lock:
            if progress.told:
                self.said.append(progress.told)
            elif self.far is None or progress.description != self.far.description:
                self.began, self.first_done = time.time(), progress.done
            if not progress.told:
                self.far = progress

    def say(self, sentence: str) -> None:
        with self.lock:
            self.said.append(sentence)

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

    def _go_on(self, over: threading.Event) -> None:
        while not over.wait(TICK_S):
            try:
                self.report()
            except LeaseLost:
                os._exit(LOST)  # whatever is being computed is nobody's any more
            except Exception:  # a database that is away for a moment
                traceback.print_exc()

    def report(self) -> None:
        """Writes what is new, and renews the lease.  Raises LeaseLost."""
        with self.lock:
            said, self.said, far = self.said, [], self.far
        try:
            with held(self.store, self.claim) as (session, job):
                for sentence in said:
                    queue.tell(session, job, sentence)
                for record in read_lines_below(self.folder):
                    data = _metrics(record)
                    step = data.get("step", 0)
                    if data.keys() & {"train_loss", "train_reward"} and step > job.last_step:
                        total = f"/{far.total:,.0f}" if far and far.total >= step else ""
                        queue.tell(session, job, _line(step, total, data), data=data)
                        job.last_step = step
                    elif data.keys() & {"valid_loss", "valid_score"} and step not in self.told_steps:
                        self.told_steps.add(step)
                        if step >= job.last_step:
                            queue.tell(session, job, _line(step, "", data), data=data)
                left = self._seconds_left(far)
                job.estimated_finish = None if left is None else int(time.time() + left)
        except LeaseLost:
            raise
        except Exception:
            with self.lock:
                self.said = said + self.said
            raise

    def _seconds_left(self, far: Progress | None) -> float | None:
        if far is None or far.done <= self.first_done or not far.total:
            return None
        return (time.time() - self.began) * (far.total - far.done) / (far.done - self.first_done)


def model_name(job: Job) -> str:
    """ft:BASE:ORGANISATION:SUFFIX:EIGHT"""
    base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model.rstrip("/").rpartition("/")[2]
    return f"ft:{base}:{job.organisation}:{job.suffix or ''}:{job.id[-8:]}"


def read_lines_below(folder: Path) -> list[dict[str, Any]]:
    """What trainings in a run's folder logged, in the order of their steps."""
    found = [record for path in sorted(folder.rglob("metrics.jsonl")) for record in read_lines(path)]
    return sorted((record for record in found if "step" in record), key=lambda record: record["step"])


def _metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a run's log, by the names of the API."""
    names = {"loss": "train_loss", "reward": "train_reward", "judged_loss": "valid_loss"}
    names |= {"judged_score": "valid_score", "dev_score": "valid_score"}
    found = {theirs: record[ours] for ours, theirs in names.items() if record.get(ours) is not None}
    return {"step": record["step"]} | found


def _line(step: int, total: str, data: Mapping[str, Any]) -> str:
    words = {"train_loss": "training loss", "train_reward": "reward", "valid_loss": "validation loss"}
    words["valid_score"] = "validation score"
    said = ", ".join(f"{word}={data[name]:.3f}" for name, word in words.items() if name in data)
    return f"Step {step}{total}: {said}"


def _table(records: list[dict[str, Any]]) -> bytes:
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


if __name__ == "__main__":
    main()
