"""The service behind `serve`: models behind OpenAI's API, and jobs that make more of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

from posttrain import candidates
from posttrain.api import places
from posttrain.api.engines import Engines, is_endpoint
from posttrain.api.keys import ApiKey
from posttrain.api.loops import run_to_end
from posttrain.api.supervising import supervised
from posttrain.candidates.policy import PolicyCandidate
from posttrain.environments._agents import MAIN
from posttrain.server import app
from posttrain.server.served import Served
from posttrain.store import keys
from posttrain.store.opening import open_store
from posttrain.store.tables import Key
from posttrain.types import Candidate, UserError


def run(
    what: Sequence[str],
    engines: Engines,
    *,
    address: tuple[str, int],
    runs: Path,
    data: Path,
    database: str,
    workers: int,
    ready: Callable[[str, list[str]], None] | None,
) -> None:
    """See `posttrain.api.serve`.  Raises UserError."""
    fixed = _served(what, engines, runs)
    told = (lambda url: ready(url, list(fixed))) if ready else None
    if not workers and _is_loopback(address[0]):
        run_to_end(app.serve(Served(fixed), *address, told))
        return
    bases = {name: bare.output.max_tokens for name in what if (bare := fixed.get(name)) and _is_bare(bare)}
    if not workers:
        bases = {}  # a job would wait for ever: it is refused
    store = open_store(data, database)
    if not _is_loopback(address[0]) and not keys.any_exists(store):
        raise UserError(
            "whoever reaches this address could ask and teach, for there is no key",
            place=f"--host {address[0]}",
            remedy=f"make one first: posttrain keys create NAME --data {data}",
        )
    served = Served(fixed, bases=bases, store=store, load=lambda folder: candidates.load(folder, engines.policy))

    async def work() -> None:
        async with supervised(store, workers):
            await app.serve(served, *address, told)

    try:
        run_to_end(work())
    finally:
        store.close()


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _served(what: Sequence[str], engines: Engines, runs: Path) -> dict[str, Candidate]:
    """By the names under which they answer."""
    served: dict[str, Candidate] = {}
    for place in what:
        candidate = places.load_candidate(place, engines, runs)
        name = candidate.name if candidate.name not in served else place
        served[name] = candidate
        if isinstance(candidate, PolicyCandidate):
            for agent, member in candidate.team().items():
                own = f"{name}.{agent}"
                if agent != MAIN:
                    served[own if own not in served else f"{place}.{agent}"] = member
    return served


def _is_bare(candidate: Candidate) -> TypeGuard[PolicyCandidate]:
    """Whether it is a local model as it is."""
    bare = isinstance(candidate, PolicyCandidate) and candidate.kind == "prompt" and not candidate.instructions
    return bare and not is_endpoint(candidate.name)


def keys_of(
    data: Path,
    database: str,
    action: str,
    name: str,
    *,
    organisation: str,
    scopes: tuple[str, ...],
    days: float | None,
) -> list[ApiKey]:
    """See `posttrain.api.keys`.  Raises UserError."""
    store = open_store(data, database)
    try:
        if action == "create":
            made, secret = keys.create(store, name, organisation=organisation, scopes=scopes, days=days)
            return [_told(made, secret)]
        if action == "revoke":
            keys.revoke(store, name)
        return [_told(key) for key in keys.listed(store)]
    finally:
        store.close()


def _told(key: Key, secret: str = "") -> ApiKey:
    return ApiKey(key.id, key.name, key.organisation, tuple(key.scopes), key.created_at, key.expires_at, secret)
