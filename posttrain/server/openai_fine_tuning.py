"""OpenAI's fine-tuning jobs: supervised, by preferences, and by a grader."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from posttrain.server import openai_files
from posttrain.server.access import Kept, Models, Teacher
from posttrain.server.errors import ApiError
from posttrain.server.methods import Hyperparameters, Method, Supervised, check_grader
from posttrain.server.pages import page
from posttrain.server.served import Served
from posttrain.store import queue
from posttrain.store.opening import Store, new_id
from posttrain.store.tables import Event, Job, Model

Limit = Annotated[int, Query(ge=1, le=100)]
Key = Annotated[str, StringConstraints(max_length=64)]
Label = Annotated[str, StringConstraints(max_length=512)]

MOST_WAITING = 100
"""Jobs of one organisation that have not ended."""

ACTIVE = (queue.VALIDATING, queue.QUEUED, queue.RUNNING, queue.PAUSED)


class JobBody(BaseModel):
    """The body of POST /v1/fine_tuning/jobs; `minutes` is ours: a job ends after so long with what it has learnt."""

    model_config = ConfigDict(extra="allow")  # so that what we do not know is refused by its name
    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, StringConstraints(max_length=64, pattern=r"^[\w.-]*$")] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Annotated[dict[Key, Label], Field(max_length=16)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None  # how it was said before there were methods
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None

    def checked(self) -> Method:
        """How to teach.  Raises ApiError for a field that would have to be ignored."""
        for name, value in (self.model_extra or {}).items():
            if value is not None:
                raise ApiError(f"{name} is not supported here; leave it out", param=name, code="unsupported_parameter")
        if self.method is not None and self.hyperparameters is not None:
            raise ApiError("method and hyperparameters; send one", param="hyperparameters", code="invalid_value")
        given = self.hyperparameters or Hyperparameters()
        method = self.method or Method(type="supervised", supervised=Supervised(hyperparameters=given))
        check_grader(method)
        return method


router = APIRouter(prefix="/v1/fine_tuning/jobs")


@router.post("")
def create(store: Kept, served: Models, body: JobBody, whose: Teacher) -> dict[str, Any]:
    method = body.checked()
    with store.writing() as session:
        longest = _longest_answer(session, served, body.model, whose)
        if method.reinforcement is not None:
            given = method.reinforcement.hyperparameters
            given.max_tokens = given.max_tokens or longest
        for param, file in (("training_file", body.training_file), ("validation_file", body.validation_file)):
            if file is not None:
                _check_file(session, file, whose, param)
        under_way = select(func.count()).where(Job.organisation == whose, Job.status.in_(ACTIVE))
        if session.scalar(under_way) >= MOST_WAITING:  # type: ignore[operator]
            raise ApiError(f"{MOST_WAITING} jobs are waiting already", status=429, code="rate_limit_exceeded")
        job = Job(
            id=new_id("ftjob-"),
            organisation=whose,
            created_at=int(time.time()),
            status=queue.VALIDATING,
            model=body.model,
            suffix=body.suffix,
            seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
            training_file=body.training_file,
            validation_file=body.validation_file,
            method=method.told,
            asked={"minutes": body.minutes} if body.minutes else {},
            labels=body.metadata,
            result_files=[],
            token=0,
            last_step=0,
            lost=0,
        )
        session.add(job)
        session.flush()
        queue.tell(session, job, f"Created fine-tuning job: {job.id}")
        queue.tell(session, job, f"Validating training file: {job.training_file}")
        return told(job)


@router.get("")
def listed(
    store: Kept, request: Request, whose: Teacher, limit: Limit = 20, after: str | None = None
) -> dict[str, Any]:
    wanted = _labels_asked(request)
    with store.reading() as session:
        asked = select(Job).where(Job.organisation == whose)
        if after:
            last = find(session, after, whose)
            same_second = (Job.created_at == last.created_at) & (Job.id < last.id)
            asked = asked.where(or_(Job.created_at < last.created_at, same_second))
        found = []
        for job in session.scalars(asked.order_by(Job.created_at.desc(), Job.id.desc())):
            if _has_labels(job, wanted):
                found.append(told(job))
            if len(found) > limit:
                break
    return page(found[:limit], has_more=len(found) > limit)


@router.get("/{job}")
def retrieve(store: Kept, job: str, whose: Teacher) -> dict[str, Any]:
    with store.reading() as session:
        return told(find(session, job, whose))


@router.post("/{job}/cancel")
def cancel(store: Kept, job: str, whose: Teacher) -> dict[str, Any]:
    return _turned(store, job, whose, ACTIVE, queue.CANCELLED, "The job was cancelled")


@router.post("/{job}/pause")
def pause(store: Kept, job: str, whose: Teacher) -> dict[str, Any]:
    return _turned(store, job, whose, (queue.QUEUED, queue.RUNNING), queue.PAUSED, "The job was paused")


@router.post("/{job}/resume")
def resume(store: Kept, job: str, whose: Teacher) -> dict[str, Any]:
    return _turned(store, job, whose, (queue.PAUSED,), queue.QUEUED, "The job was resumed")


@router.get("/{job}/events")
def events(store: Kept, job: str, whose: Teacher, limit: Limit = 20, after: str | None = None) -> dict[str, Any]:
    with store.reading() as session:
        find(session, job, whose)
        asked = select(Event).where(Event.job == job)
        if after:
            number = after.removeprefix("ftevent-")
            if not number.isdigit():
                raise ApiError(f"no event {after!r}", status=404, param="after", code="not_found")
            asked = asked.where(Event.number < int(number))
        found = session.scalars(asked.order_by(Event.number.desc()).limit(limit + 1)).all()
    return page([told_event(event) for event in found[:limit]], has_more=len(found) > limit)


@router.get("/{job}/checkpoints")
def checkpoints(store: Kept, job: str, whose: Teacher, limit: Limit = 10, after: str | None = None) -> dict[str, Any]:
    with store.reading() as session:
        find(session, job, whose)
        asked = select(Model).where(Model.job == job, Model.step.is_not(None))
        if after:
            last = session.scalars(asked.where(Model.checkpoint == after)).first()
            if last is None:
                raise ApiError(f"no checkpoint {after!r}", status=404, param="after", code="not_found")
            asked = asked.where(Model.step < last.step)
        found = session.scalars(asked.order_by(Model.step.desc()).limit(limit + 1)).all()
    return page([told_checkpoint(model) for model in found[:limit]], has_more=len(found) > limit)


def find(session: Session, job: str, whose: str, *, to_write: bool = False) -> Job:
    """A job of an organisation.  Raises ApiError (404)."""
    asked = select(Job).where(Job.id == job, Job.organisation == whose)
    row = session.scalars(asked.with_for_update() if to_write else asked).first()
    if row is None:
        raise ApiError(f"no fine-tuning job {job!r}", status=404, param="fine_tuning_job_id", code="not_found")
    return row


def told(job: Job) -> dict[str, Any]:
    """A job as the API shows it."""
    supervised = job.method["supervised"]["hyperparameters"] if job.method["type"] == "supervised" else None
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": job.model,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": job.organisation,
        "result_files": job.result_files,
        "status": job.status,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "hyperparameters": supervised,
        "trained_tokens": job.trained_tokens,
        "error": job.error,
        "user_provided_suffix": job.suffix,
        "seed": job.seed,
        "estimated_finish": job.estimated_finish,
        "integrations": [],
        "method": job.method,
        "metadata": job.labels,
        "usage_metrics": None,
        "shared_with_openai": False,
        **job.asked,
    }


def told_event(event: Event) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{event.number}",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": "message" if event.data is None else "metrics",
        "data": event.data,
    }


def told_checkpoint(model: Model) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": model.checkpoint,
        "created_at": model.created_at,
        "fine_tuned_model_checkpoint": model.name,
        "fine_tuning_job_id": model.job,
        "step_number": model.step,
        "metrics": {"step": model.step} | (model.metrics or {}),
    }


def _turned(store: Store, job: str, whose: str, may: Sequence[str], status: str, said: str) -> dict[str, Any]:
    """A job that is given another status.  Raises ApiError when it has one that does not allow it."""
    with store.writing() as session:
        row = find(session, job, whose, to_write=True)
        if row.status not in may:
            raise ApiError(
                f"the job is {row.status}; this is for one that is {' or '.join(may)}",
                param="fine_tuning_job_id",
                code="invalid_state",
            )
        queue.end(row, status)
        queue.tell(session, row, said)
        return told(row)


def _longest_answer(session: Session, served: Served, model: str, whose: str) -> int:
    """How long the answers of a model may be unless told otherwise.  Raises ApiError for one that cannot be taught."""
    asked = select(Model).where(Model.name == model, Model.organisation == whose)
    made = session.scalars(asked).first()
    base = made.base if made else model
    if base not in served.bases:
        known = ", ".join(served.bases) or "none: start the server with a local model"
        raise ApiError(f"no model {model!r} to fine-tune; there is: {known}", param="model", code="model_not_found")
    return served.bases[base]


def _check_file(session: Session, file: str, whose: str, param: str) -> None:
    try:
        row = openai_files.find(session, file, whose)
    except ApiError as error:
        raise ApiError(f"no file {file!r}", param=param, code="invalid_file") from error
    if row.purpose != "fine-tune":
        raise ApiError(f"the file's purpose is {row.purpose!r}, not 'fine-tune'", param=param, code="invalid_file")


def _labels_asked(request: Request) -> dict[str, str] | None:
    """What `metadata` jobs must have: {} any, None none at all."""
    if request.query_params.get("metadata") == "null":
        return None
    return {
        key[len("metadata[") : -1]: value
        for key, value in request.query_params.items()
        if key.startswith("metadata[") and key.endswith("]")
    }


def _has_labels(job: Job, wanted: dict[str, str] | None) -> bool:
    if wanted is None:
        return not job.labels
    return all((job.labels or {}).get(key) == value for key, value in wanted.items())
