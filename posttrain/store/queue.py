"""Who works on which job: leases with a fencing token.

A worker claims a job for `LEASE_S` and renews that as it goes.  Each claim raises the job's token, and so do pausing
and cancelling; whatever a worker writes is held against the token first, in the same transaction.  So a worker that was
taken for dead, and was only slow, finds that its lease is lost and can write nothing more (M. Kleppmann, "How to do
distributed locking", 2016).  What it writes to the disk goes to a folder named after its token, which nobody else uses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from posttrain.store.opening import Store
from posttrain.store.tables import Event, Job

LEASE_S = 15.0

MOST_LOST = 5
"""Workers that may die over a job, one after another, before it has got a step further."""

VALIDATING, QUEUED, RUNNING, PAUSED = "validating_files", "queued", "running", "paused"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
ENDED = (SUCCEEDED, FAILED, CANCELLED)


class LeaseLost(Exception):
    """Somebody else has this job by now, or it was paused or cancelled."""


@dataclass(frozen=True)
class Claim:
    """A lease of a job."""

    job: str
    token: int


def claim(store: Store, worker: str = "", now: float | None = None) -> Claim | None:
    """The next job nobody works on: of the organisation with the fewest under way, the oldest.  None: there is none."""
    now = time.time() if now is None else now
    with store.writing() as session:
        free = or_(Job.status == QUEUED, and_(Job.status == RUNNING, Job.leased_until < now))
        other = aliased(Job)
        under_way = (
            select(func.count())
            .where(other.organisation == Job.organisation, other.status == RUNNING, other.leased_until >= now)
            .scalar_subquery()
        )
        oldest = select(Job).where(free).order_by(under_way, Job.created_at, Job.id).limit(1)
        job = session.scalars(oldest.with_for_update(skip_locked=True)).first()
        if job is None:
            return None
        if job.status == RUNNING:
            job.lost += 1
            if job.lost > MOST_LOST:
                _give_up(session, job)
                return None
        job.status, job.leased_until, job.started_at = RUNNING, now + LEASE_S, job.started_at or int(now)
        job.token, job.worker = job.token + 1, worker
        return Claim(job.id, job.token)


@contextmanager
def held(store: Store, claim: Claim, now: float | None = None) -> Iterator[tuple[Session, Job]]:
    """A transaction of whoever holds a lease, which it renews.  Raises LeaseLost, and then nothing is written."""
    with store.writing() as session:
        job = session.get(Job, claim.job, with_for_update=True)
        if job is None or job.token != claim.token or job.status != RUNNING:
            raise LeaseLost(claim.job)
        job.leased_until = (time.time() if now is None else now) + LEASE_S
        yield session, job


def _give_up(session: Session, job: Job) -> None:
    message = (
        f"{MOST_LOST} workers died over this job, one after another, and it got no further; is there memory enough?"
    )
    job.error = {"code": "server_error", "message": message, "param": None}
    tell(session, job, message, level="error")
    end(job, FAILED)


def end(job: Job, status: str) -> None:
    """The job is over, or rests: nobody holds it any more."""
    job.status, job.leased_until, job.estimated_finish = status, None, None
    job.token += 1
    if status in ENDED:
        job.finished_at = int(time.time())


def tell(
    session: Session, job: Job, message: str, *, level: str = "info", data: dict[str, object] | None = None
) -> None:
    """Writes an event."""
    session.add(Event(job=job.id, created_at=int(time.time()), level=level, message=message, data=data))
