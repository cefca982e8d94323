"""The database and the folder beside it, opened and brought up to date.

SQLite in the folder is the embedded default, in WAL mode: readers do not wait for a writer.  Any other database that
SQLAlchemy knows can be named by its URL; PostgreSQL is the one that is tested.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from posttrain.runs import disk_errors
from posttrain.types import UserError

MIGRATIONS = Path(__file__).parent / "migrations"

BUSY_MS = 30_000
"""How long one writer of SQLite waits for another."""

WRITES = {"writes": True}


@dataclass(frozen=True)
class Store:
    """`folder` holds what is too large for a database: files and what jobs make."""

    folder: Path
    engine: Engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: all of it is kept, or nothing when the block raises."""
        writer = self.engine.execution_options(**WRITES)
        with Session(writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()

    @property
    def url(self) -> str:
        """For another process that opens the same."""
        return self.engine.url.render_as_string(hide_password=False)


def open_store(folder: Path, url: str = "") -> Store:
    """The store in a folder, made if there is none.  `url` names a database elsewhere: postgresql+psycopg://...

    Raises UserError when it cannot be had, or was written by a newer version.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    url = url or f"sqlite:///{(folder / 'posttrain.db').resolve()}"
    try:
        engine = create_engine(url, pool_pre_ping=True)
        if engine.dialect.name == "sqlite":
            _as_sqlite(engine)
        with engine.execution_options(**WRITES).begin() as connection:
            _bring_up_to_date(connection)
    except (ArgumentError, NoSuchModuleError, DBAPIError, ModuleNotFoundError, CommandError) as error:
        raise UserError(
            f"cannot open the database: {str(error).splitlines()[0]}",
            place=str(folder),
            remedy="see that it is running and that its URL is right, or leave --database out for one in the folder",
        ) from error
    return Store(folder.resolve(), engine)


def _as_sqlite(engine: Engine) -> None:
    """Transactions begin when they are told to, and those that write wait for one another at once: two that begin by
    reading could each wait for the other."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for line in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {line}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(connection: Connection) -> None:
    """Runs what migrations there are; several processes may come at once."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7205)")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def new_id(kind: str) -> str:
    """An id that nobody can guess: "file-3fa9...", "ftjob-..."."""
    return f"{kind}{secrets.token_hex(12)}"


def flushed(path: Path, content: bytes) -> None:
    """Writes a file whole and sees to it that it is on the disk before anybody is told of it."""
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
