"""OpenAI's files: what jobs learn from, and what they write.  A file is looked at as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from posttrain.runs import DiskError
from posttrain.server.access import Kept, Teacher
from posttrain.server.errors import ApiError
from posttrain.server.pages import page
from posttrain.store import files
from posttrain.store.opening import Store
from posttrain.store.tables import File
from posttrain.tasks import uploaded
from posttrain.types import UserError

LARGEST = 512 * 2**20
"""Bytes of a file."""

PURPOSES = ("fine-tune", "evals", "user_data")
PIECE = 2**20
A_DAY, THIRTY_DAYS = 3600, 30 * 86400
"""The shortest and the longest that a file may be asked to live."""


router = APIRouter(prefix="/v1/files")


@router.post("")
def create(
    store: Kept,
    whose: Teacher,
    file: UploadFile,
    purpose: Annotated[str, Form()],
    anchor: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]")] = None,
) -> dict[str, Any]:
    if purpose not in PURPOSES:
        known = ", ".join(PURPOSES)
        raise ApiError(f"purpose {purpose!r} is none of {known}", param="purpose", code="invalid_value")
    expires_at = _expiry(anchor, seconds)
    kept, size = files.write(store, _pieces(file))
    try:
        if not size:
            raise ApiError("the file is empty", param="file", code="invalid_file")
        problem = _problem(store, kept) if purpose == "fine-tune" else None
        with store.writing() as session:
            row = files.add(
                session,
                kept,
                organisation=whose,
                filename=_plain_name(file.filename),
                purpose=purpose,
                size=size,
                problem=problem,
                expires_at=expires_at,
            )
            return told(row)
    except BaseException:
        files.remove(store, kept)
        raise


@router.get("")
def listed(
    store: Kept,
    whose: Teacher,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    with store.reading() as session:
        asked = select(File).where(File.organisation == whose, *_alive())
        if purpose:
            asked = asked.where(File.purpose == purpose)
        if after:
            last = find(session, after, whose)
            later, id_later = File.created_at > last.created_at, File.id > last.id
            if order == "desc":
                later, id_later = File.created_at < last.created_at, File.id < last.id
            asked = asked.where(or_(later, (File.created_at == last.created_at) & id_later))
        by = (File.created_at, File.id) if order == "asc" else (File.created_at.desc(), File.id.desc())
        found = session.scalars(asked.order_by(*by).limit(limit + 1)).all()
    return page([told(row) for row in found[:limit]], has_more=len(found) > limit)


@router.get("/{file}")
def retrieve(store: Kept, file: str, whose: Teacher) -> dict[str, Any]:
    with store.reading() as session:
        return told(find(session, file, whose))


@router.delete("/{file}")
def delete(store: Kept, file: str, whose: Teacher) -> dict[str, Any]:
    with store.writing() as session:
        session.delete(find(session, file, whose))
    files.remove(store, file)
    return {"id": file, "object": "file", "deleted": True}


@router.get("/{file}/content")
def content(store: Kept, file: str, whose: Teacher) -> Response:
    with store.reading() as session:
        row = find(session, file, whose)
    return FileResponse(files.path_of(store, row.id), media_type="application/octet-stream")


def find(session: Session, file: str, whose: str) -> File:
    """A file of an organisation.  Raises ApiError (404)."""
    row = session.scalars(select(File).where(File.id == file, File.organisation == whose, *_alive())).first()
    if row is None:
        raise ApiError(f"no file {file!r}", status=404, param="id", code="not_found")
    return row


def told(row: File) -> dict[str, Any]:
    """A file as the API shows it."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "error" if row.problem else "processed",
        "status_details": row.problem,
    }


def _alive() -> tuple[Any, ...]:
    return (or_(File.expires_at.is_(None), File.expires_at > int(time.time())),)


def _expiry(anchor: str | None, seconds: int | None) -> int | None:
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at" or seconds is None or not A_DAY <= seconds <= THIRTY_DAYS:
        raise ApiError(
            f'expires_after is {{"anchor": "created_at", "seconds": {A_DAY} to {THIRTY_DAYS}}}',
            param="expires_after",
            code="invalid_value",
        )
    return int(time.time()) + seconds


def _pieces(file: UploadFile) -> Iterator[bytes]:
    size = 0
    while piece := file.file.read(PIECE):
        size += len(piece)
        if size > LARGEST:
            raise ApiError(f"the file is larger than {LARGEST // 2**20} MB", status=413, param="file")
        yield piece


def _problem(store: Store, file: str) -> str | None:
    """Why nothing can be learnt from a file by any method; None when something can."""
    problems = []
    for method in ("supervised", "dpo", "reinforcement"):
        try:
            uploaded.read(files.path_of(store, file), method)
            return None
        except DiskError:
            raise
        except UserError as error:
            problems.append(error)
    return " ".join(str(_furthest(problems)).split())


def _furthest(problems: list[UserError]) -> UserError:
    """The error of the method that got furthest down the file: that is what it was meant for."""

    def line(error: UserError) -> int:
        number = error.place.removeprefix("line ")
        return int(number) if number.isdigit() else 0

    return max(problems, key=line)


def _plain_name(name: str | None) -> str:
    """What a client calls its file, for people to read; it is never a path here."""
    return (name or "file").replace("\\", "/").rpartition("/")[2][:255] or "file"
