"""What every route is given: who asks, what is served, and where it is kept.

As long as there is no key, everybody on this machine is one organisation.  From the first key on each request needs
one, `Authorization: Bearer KEY`, and sees what belongs to the key's organisation: all else is not found.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from posttrain.server.errors import ApiError
from posttrain.server.served import Served
from posttrain.store import keys
from posttrain.store.keys import Scope
from posttrain.store.opening import Store

LOCAL = "local"
"""The organisation of everybody, as long as there are no keys."""


def _organisation(request: Request, scope: Scope) -> str:
    store = request.app.state.served.store
    if store is None or not keys.any_exists(store):
        return LOCAL
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    key = keys.found(store, secret.strip()) if kind.casefold() == "bearer" else None
    if key is None:
        said = "a wrong or expired key" if secret else "no key"
        raise ApiError(f"{said}: send Authorization: Bearer KEY", status=401, code="invalid_api_key")
    if scope not in key.scopes:
        raise ApiError(f"this key may not {scope}: it may {', '.join(key.scopes)}", status=403, code="missing_scope")
    return key.organisation


def _asker(request: Request) -> str:
    return _organisation(request, "ask")


def _teacher(request: Request) -> str:
    return _organisation(request, "teach")


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


def _store(request: Request) -> Store:
    store: Store = request.app.state.served.store
    return store


Asker = Annotated[str, Depends(_asker)]
Teacher = Annotated[str, Depends(_teacher)]
"""The organisation of whoever may ask models, or teach them."""

Models = Annotated[Served, Depends(_served)]
Kept = Annotated[Store, Depends(_store)]
