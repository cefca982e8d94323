"""The models that can be asked: those the server was started with, and what its jobs have made since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from posttrain.server.errors import ApiError
from posttrain.store.opening import Store
from posttrain.store.tables import Model
from posttrain.types import Candidate


class Served:
    """`fixed` are served under their names to everybody; `bases` are those of them that jobs may begin with, and how
    many tokens their answers have at most.  What jobs have made is loaded when it is first asked, on the base that is
    there already, by `load(folder)`."""

    def __init__(
        self,
        fixed: Mapping[str, Candidate],
        *,
        bases: Mapping[str, int] | None = None,
        store: Store | None = None,
        load: Callable[[Path], Candidate] | None = None,
    ) -> None:
        self.fixed, self.bases, self.store, self._load = fixed, bases or {}, store, load
        self.created = int(time.time())
        self._loaded: dict[str, Candidate] = {}
        self._loading = asyncio.Lock()

    def all(self, whose: str) -> Iterator[dict[str, Any]]:
        """Every model that an organisation may ask, as the API shows it."""
        yield from (_told(name, self.created, "posttrain") for name in self.fixed)
        if self.store is not None:
            with self.store.reading() as session:
                made = session.scalars(select(Model).where(Model.organisation == whose).order_by(Model.created_at))
                yield from (_told(model.name, model.created_at, whose) for model in made)

    def told(self, name: str, whose: str) -> dict[str, Any]:
        """Raises ApiError (404)."""
        if name in self.fixed:
            return _told(name, self.created, "posttrain")
        return _told(name, self._made(name, whose).created_at, whose)

    async def candidate(self, name: str, whose: str) -> Candidate:
        """Raises ApiError (404)."""
        if name in self.fixed:
            return self.fixed[name]
        made = await asyncio.to_thread(self._made, name, whose)
        async with self._loading:
            if name not in self._loaded:
                assert self.store is not None and self._load is not None
                self._loaded[name] = await asyncio.to_thread(self._load, self.store.folder / made.folder)
            return self._loaded[name]

    def delete(self, name: str, whose: str) -> None:
        """Raises ApiError (404, or 400 for what the server was started with)."""
        if name in self.fixed:
            raise ApiError(f"{name} was there when the server started and cannot be deleted", param="model")
        made = self._made(name, whose)
        assert self.store is not None
        with self.store.writing() as session:
            session.delete(session.get_one(Model, made.name))
        self._loaded.pop(name, None)

    def _made(self, name: str, whose: str) -> Model:
        if self.store is not None:
            with self.store.reading() as session:
                found = session.scalars(select(Model).where(Model.name == name, Model.organisation == whose)).first()
            if found is not None:
                return found
        raise ApiError(
            f"no model {name!r} here; there is: {', '.join(each['id'] for each in self.all(whose))}",
            status=404,
            param="model",
            code="model_not_found",
        )


def _told(name: str, created: int, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
