"""API keys.  A key is told once, when it is made; what is kept is its SHA-256, which is enough for 256 random bits."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import func, select

from posttrain.store.opening import Store, new_id
from posttrain.store.tables import Key
from posttrain.types import UserError

Scope = Literal["ask", "teach"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "sk-posttrain-"
ORGANISATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""It is part of the names of models."""

A_DAY = 86_400


def create(
    store: Store, name: str, *, organisation: str, scopes: Sequence[str] = SCOPES, days: float | None = None
) -> tuple[Key, str]:
    """A new key, and its secret.  Raises UserError."""
    if not ORGANISATION.fullmatch(organisation):
        raise UserError(
            f"{organisation!r} is no name of an organisation",
            place="--organisation",
            remedy="give up to 32 letters, digits, - or _",
        )
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise UserError(f"no scope {unknown or ''}", place="--scopes", remedy=f"give some of {', '.join(SCOPES)}")
    secret = PREFIX + secrets.token_urlsafe(32)
    now = int(time.time())
    key = Key(
        id=new_id("key-"),
        digest=digest(secret),
        organisation=organisation,
        name=name[:255],
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=None if days is None else now + int(days * A_DAY),
    )
    with store.writing() as session:
        session.add(key)
    return key, secret


def listed(store: Store) -> Sequence[Key]:
    """All keys, the oldest first."""
    with store.reading() as session:
        return session.scalars(select(Key).order_by(Key.created_at, Key.id)).all()


def revoke(store: Store, key: str) -> None:
    """From now on nobody gets in by it.  Raises UserError when there is none of this id."""
    with store.writing() as session:
        row = session.get(Key, key)
        if row is None:
            known = ", ".join(each.id for each in session.scalars(select(Key))) or "none"
            raise UserError(f"no key {key!r}", remedy=f"there is: {known}")
        session.delete(row)


def any_exists(store: Store) -> bool:
    with store.reading() as session:
        return bool(session.scalar(select(func.count()).select_from(Key)))


def found(store: Store, secret: str) -> Key | None:
    """The key of a secret; None when there is none, or it has expired."""
    with store.reading() as session:
        key = session.scalars(select(Key).where(Key.digest == digest(secret))).first()
    return key if key and (key.expires_at is None or key.expires_at > time.time()) else None


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
