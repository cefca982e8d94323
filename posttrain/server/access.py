"""What every route is given: who asks, what is served, and where it is kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from posttrain.server.served import Served
from posttrain.store.opening import Store

LOCAL = "local"
"""The organisation of everybody, as long as there are no keys."""


def _organisation(_: Request) -> str:
    return LOCAL


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


def _store(request: Request) -> Store:
    store: Store = request.app.state.served.store
    return store


Whose = Annotated[str, Depends(_organisation)]
"""The organisation that files, jobs and models belong to."""

Models = Annotated[Served, Depends(_served)]
Kept = Annotated[Store, Depends(_store)]
