"""The databases that the service is tested on.  PostgreSQL is that of $POSTTRAIN_TEST_POSTGRESQL, a URL of a server where
databases may be made; `.ci/run` starts one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, make_url, text

SERVER = os.environ.get("POSTTRAIN_TEST_POSTGRESQL", "")
NONE = pytest.mark.skipif(not SERVER, reason="no PostgreSQL: set POSTTRAIN_TEST_POSTGRESQL to the URL of a server")
DATABASES = ["sqlite", pytest.param("postgresql", marks=NONE)]


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database; "" for SQLite in the folder."""
    if kind == "sqlite":
        yield ""
        return
    name = f"posttrain_{secrets.token_hex(6)}"
    server = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()
