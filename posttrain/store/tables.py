"""What the service remembers, as tables.  Times are whole seconds since 1970 in UTC, as OpenAI's objects have them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Of constraints: a migration that changes one must be able to name it."""


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)


class Key(Table):
    """An API key, of which only a digest is kept.  `scopes`: "ask" models, "teach" them."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    organisation: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(255))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)


class File(Table):
    """An uploaded file, or one that a job wrote; its bytes lie beside the database under its id."""

    __tablename__ = "files"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    problem: Mapped[str | None] = mapped_column(Text)  # why nothing can be learnt from it


class Job(Table):
    """A fine-tuning job.  Whoever works on it holds a lease until `leased_until`, and the `token` of that lease; every
    lease has a higher one, and a worker with an older one can write nothing (see queue.py)."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    estimated_finish: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(32), index=True)
    model: Mapped[str] = mapped_column(Text)
    suffix: Mapped[str | None] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    training_file: Mapped[str] = mapped_column(String(64))
    validation_file: Mapped[str | None] = mapped_column(String(64))
    method: Mapped[dict[str, Any]] = mapped_column(JSON)  # as it is told: with the numbers chosen for "auto"
    asked: Mapped[dict[str, Any]] = mapped_column(JSON)  # what the request added beyond OpenAI's fields
    labels: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))  # its `metadata`
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    fine_tuned_model: Mapped[str | None] = mapped_column(Text)
    result_files: Mapped[list[str]] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    token: Mapped[int] = mapped_column(Integer, default=0)
    leased_until: Mapped[float | None] = mapped_column()
    worker: Mapped[str | None] = mapped_column(String(64))  # who holds it, as its supervisor calls it
    last_step: Mapped[int] = mapped_column(Integer, default=0)  # of which an event was written
    lost: Mapped[int] = mapped_column(Integer, default=0)  # leases since then


class Event(Table):
    """Something that happened to a job, in order."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[int] = mapped_column(BigInteger)
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of a metrics event

    __table_args__ = (Index("ix_events_job_number", "job", "number"),)


class Model(Table):
    """A model that can be asked: what a job made, whole or at one of its checkpoints.  `folder` is that of the saved
    candidate, beside the database."""

    __tablename__ = "models"
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    job: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int | None] = mapped_column(Integer)  # of a checkpoint
    checkpoint: Mapped[str | None] = mapped_column(String(64), unique=True)  # its id
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    base: Mapped[str] = mapped_column(Text)
    folder: Mapped[str] = mapped_column(Text)
