"""The HTTP door: candidates behind OpenAI's chat completions, on this machine's own address unless told otherwise."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from posttrain.server import errors, openai_chat
from posttrain.types import Candidate, UserError


def create_app(candidates: Mapping[str, Candidate]) -> FastAPI:
    """An app that serves `candidates` by name; the first is the one the examples call."""
    app = FastAPI(title="posttrain", docs_url=None, redoc_url=None)
    errors.install(app)
    app.include_router(openai_chat.routes(candidates))

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        return {"status": "ok", "models": list(candidates)}

    return app


async def serve(
    candidates: Mapping[str, Candidate],
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until interrupted, and then returns.

    `ready` is called with the URL once requests are answered; port 0 takes a free one.

    Raises UserError when the address cannot be had.
    """
    if not candidates:
        raise UserError("nothing to serve", remedy="name a run or a model")
    listener = _listen(host, port)
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
    # No log_config: uvicorn's own closes the handlers of everybody else in the process, a notebook's too.
    config = uvicorn.Config(
        create_app(candidates), log_config=None, log_level="warning", lifespan="off", timeout_graceful_shutdown=5
    )
    server = _Server(config, lambda: ready(url) if ready else None)
    with listener:
        work = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:  # whoever cancels this gets an orderly end, as Ctrl-C does
            server.should_exit = True
            await work
            raise


class _Server(uvicorn.Server):
    """Says when it has started, and takes Ctrl-C for the usual end that it is."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else they would be raised again, once all is closed


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, before anything else is done: an address in use is found at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"cannot listen: {error.strerror or error}",
            place=f"{host}:{port}",
            remedy="choose another --port (0 takes a free one) or --host",
        ) from error
