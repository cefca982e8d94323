"""keys: who may ask and teach the models of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posttrain.api.serving import DATA
from posttrain.types import UserError

Action = Literal["create", "list", "revoke"]


@dataclass(frozen=True)
class ApiKey:
    """`secret` is told once, when it is made.  Times are seconds since 1970."""

    id: str
    name: str
    organisation: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    secret: str = ""


def keys(
    action: Action = "list",
    name: str = "",
    *,
    organisation: str = "local",
    scopes: Sequence[str] = ("ask", "teach"),
    days: float | None = None,
    data: str | Path = DATA,
    database: str = "",
) -> list[ApiKey]:
    """Makes a key of a `name`, lists all, or revokes the one of the id `name`; what is left, or the one that was made.

    Keys of one `organisation` see its files, jobs and models, and no other's; `scopes` are "ask" and "teach"; it
    expires after so many `days`.  Raises UserError.
    """
    from posttrain.api import service  # noqa: PLC0415  (the database: half a second to load)

    if action != "list" and not name:
        what = "name the key" if action == "create" else "give the key's id: posttrain keys list"
        raise UserError(f"{action} what?", remedy=what)
    return service.keys_of(
        Path(data), database, action, name, organisation=organisation, scopes=tuple(scopes), days=days
    )
