"""A worker: a process of its own that takes one job, teaches it, and ends.

    python -m posttrain.api.working FOLDER NAME     # the database's URL is in $POSTTRAIN_DATABASE

It holds a lease while it works (posttrain/store/queue.py), and ends on the spot when it has lost that: the job was
paused, cancelled, or given to another.  A job that was worked on before goes on from its last checkpoint.

    jobs/ID/task           what is taught, made once
    jobs/ID/attempt-TOKEN  what one worker wrote: a run of `teach`; the next begins with a copy
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

from posttrain import tasks
from posttrain.api.engines import DATABASE
from posttrain.api.reporting import LOST, Checkpoints, Reporter, logged, made_model, model_name, table
from posttrain.api.teaching import RESULT, go_on, teach
from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import read_json
from posttrain.server.methods import Teaching, teaching
from posttrain.store import files, queue
from posttrain.store.opening import Store, open_store
from posttrain.store.queue import Claim, LeaseLost, claim, held
from posttrain.store.tables import Job, Model
from posttrain.tasks import uploaded
from posttrain.types import LearntNothing, Policy, Task, UserError


def main() -> None:
    """Works on the next job, if there is any."""
    store = open_store(Path(sys.argv[1]), os.environ.get(DATABASE, ""))
    found = claim(store, sys.argv[2])
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
            self._fail(code, f"{error.message}; {error.remedy}")
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
        begun = self._last_run()
        self._tell_numbers(plan, "Fine-tuning job started" if begun is None else "Going on from the last checkpoint")
        base = source.base if source else job.model
        checkpoint = PolicyCandidate.of(plan.technique, cast(Policy, SimpleNamespace(model=base)), task)
        self.reporter.checkpoints = Checkpoints(self.attempt / "checkpoints", replace(checkpoint, kind="weights"))
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
            taught = go_on(begun, runs=self.attempt, on_progress=self.reporter.hear).folder
        self.reporter.keep_last(taught)
        return taught, read_json(taught / RESULT)

    def _task(self, job: Job) -> Task:
        """The job's task, made when it was not before."""
        folder = self.folder / "task"
        if not (folder / "task.toml").exists():
            method = job.method["type"]
            given = [job.training_file, *([job.validation_file] if job.validation_file else [])]
            rows = [uploaded.read(files.path_of(self.store, file), method) for file in given]
            rewarded = job.method["reinforcement"] if method == "reinforcement" else None
            how = (
                {"grader": rewarded["grader"], "longest": rewarded["hyperparameters"]["max_tokens"]} if rewarded else {}
            )
            unnamed = folder.with_name(f"task-{self.claim.token:04}")
            task = uploaded.write(unnamed, rows[0], rows[1] if len(rows) > 1 else [], seed=job.seed, **how)
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

    def _tell_numbers(self, plan: Teaching, said: str) -> None:
        with held(self.store, self.claim) as (session, job):
            method = dict(job.method)
            kind = method["type"]
            asked = method[kind]["hyperparameters"]
            method[kind] = method[kind] | {"hyperparameters": asked | plan.chosen}
            job.method = method
            queue.tell(session, job, said)

    def _succeed(self, run: Path, result: Mapping[str, Any]) -> None:
        file, size = files.write(self.store, [table(logged(run))])
        saved = run / "saved"
        training = read_json(saved / "candidate.json")["details"].get("training", {})
        with held(self.store, self.claim) as (session, job):
            name = model_name(job)
            metrics = {"before": result["before"], "after": result["after"], "scored_by": result["scored_by"]}
            base = read_json(saved / "candidate.json")["model"]
            session.add(made_model(job, name, base, saved.relative_to(self.store.folder), metrics))
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
        message = message.replace(f"{self.store.folder}/", "")  # where the service keeps things is nobody's business
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


if __name__ == "__main__":
    main()
