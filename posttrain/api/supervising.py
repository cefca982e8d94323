"""Beside the server: new jobs are looked at, and workers are started for those that wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import time

from sqlalchemy import and_, func, or_, select

from posttrain.api.engines import DATABASE
from posttrain.store import files, queue
from posttrain.store.opening import Store, new_id
from posttrain.store.tables import Job
from posttrain.tasks import uploaded
from posttrain.types import UserError

LOOK_S = 0.3

PATIENCE_S = 20.0
"""How long a worker may take to give its job back when the server ends."""

NICENESS = 10
"""Of workers: whoever asks a model comes first."""


@asynccontextmanager
async def supervised(store: Store, workers: int) -> AsyncIterator[None]:
    """While the block runs, up to so many jobs are worked on.  At its end workers give theirs back, to be gone on
    with."""
    supervisor = Supervisor(store, workers)
    task = asyncio.create_task(supervisor.go_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(supervisor.end)


@dataclass
class Supervisor:
    """The workers of one server.  Those of another, or of one that was killed, hold leases and are left alone."""

    store: Store
    most: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # by the names they are given

    async def go_on(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # a database that is away for a moment
                traceback.print_exc()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Once: new jobs are validated, a worker that has lost its lease is ended, and one is started where there is
        room and something to do."""
        lost = and_(Job.status == queue.RUNNING, Job.leased_until < time())
        with self.store.reading() as session:
            fresh = session.scalars(select(Job.id).where(Job.status == queue.VALIDATING)).all()
            waiting = session.scalar(select(func.count()).where(or_(Job.status == queue.QUEUED, lost)))
            stuck = session.scalars(select(Job.worker).where(lost)).all()
        for job in fresh:
            validate(self.store, job)
        for name in stuck:
            if name in self.running:
                self.running[name].kill()
        self.running = {name: worker for name, worker in self.running.items() if worker.poll() is None}
        if waiting and len(self.running) < self.most:
            name = new_id("worker-")
            self.running[name] = self._started(name)

    def end(self) -> None:
        """Workers are asked to give their jobs back, and ended when they do not."""
        for worker in self.running.values():
            worker.terminate()
        for worker in self.running.values():
            try:
                worker.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        known = {DATABASE: self.store.url, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "posttrain.api.working", str(self.store.folder), name]
        with (self.store.folder / "workers.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=os.environ | known,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the server, which ends them in its own way
                preexec_fn=lambda: os.nice(NICENESS) and None,
            )


def validate(store: Store, job: str) -> None:
    """A new job is queued, or failed with the line of the file that is wrong."""
    with store.reading() as session:
        asked = session.get_one(Job, job)
    named = [("training_file", asked.training_file), ("validation_file", asked.validation_file)]
    error = None
    for param, file in named:
        if file is not None and error is None:
            try:
                uploaded.read(files.path_of(store, file), asked.method["type"])
            except UserError as wrong:
                error = {"code": f"invalid_{param}", "message": " ".join(str(wrong).split()), "param": param}
    with store.writing() as session:
        row = session.get(Job, job, with_for_update=True)
        if row is None or row.status != queue.VALIDATING:  # cancelled, or another server was quicker
            return
        if error is not None:
            row.error = error
            queue.tell(session, row, error["message"], level="error")
            queue.end(row, queue.FAILED)
        else:
            queue.tell(session, row, "Files validated, moving job to queued state")
            row.status = queue.QUEUED
