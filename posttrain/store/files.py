"""Files: their bytes in the folder under an id of ours, so that no name that anybody sent is ever a path."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.orm import Session

from posttrain.runs import disk_errors
from posttrain.store.opening import Store, new_id
from posttrain.store.tables import File

FOLDER = "files"


def path_of(store: Store, file: str) -> Path:
    """Where a file's bytes are; `file` is an id out of the database."""
    return store.folder / FOLDER / file


def write(store: Store, content: Iterable[bytes]) -> tuple[str, int]:
    """Keeps bytes on the disk before anybody is told of them: the id of a file to be, and how many they are."""
    file, count = new_id("file-"), 0
    path = path_of(store, file)
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as written:
            for piece in content:
                count += written.write(piece)
            written.flush()
            os.fsync(written.fileno())
    return file, count


def add(
    session: Session,
    file: str,
    *,
    organisation: str,
    filename: str,
    purpose: str,
    size: int,
    problem: str | None = None,
    expires_at: int | None = None,
) -> File:
    """The row of a file whose bytes are written."""
    row = File(
        id=file,
        organisation=organisation,
        created_at=int(time.time()),
        expires_at=expires_at,
        filename=filename,
        purpose=purpose,
        bytes=size,
        problem=problem,
    )
    session.add(row)
    return row


def remove(store: Store, file: str) -> None:
    path_of(store, file).unlink(missing_ok=True)
