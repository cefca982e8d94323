"""The HTTP door: candidates behind OpenAI's chat completions, on this machine's own address unless told otherwise."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from posttrain.server import errors, openai_chat, openai_files, openai_fine_tuning, openai_graders, openai_models
from posttrain.server.served import Served
from posttrain.types import UserError


def create_app(served: Served) -> FastAPI:
    """An app that answers for what is served, and, where that has a store, takes files and jobs."""
    app = FastAPI(title="posttrain", docs_url=None, redoc_url=None)
    errors.install(app)
    app.state.served = served
    dialects = [
        openai_chat,
        openai_models,
        *([openai_files, openai_fine_tuning, openai_graders] if served.store else []),
    ]
    for dialect in dialects:
        app.include_router(dialect.router)

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        return {"status": "ok", "models": list(served.fixed)}

    return app


async def serve(
    served: Served,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until interrupted, and then returns.

    `ready` is called with the URL once requests are answered; port 0 takes a free one.

    Raises UserError when the address cannot be had.
    """
    if not served.fixed:
        raise UserError("nothing to serve", remedy="name a run or a model")
    listener = _listen(host, port)
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
    # No log_config: uvicorn's own closes the handlers of everybody else in the process, a notebook's too.
    config = uvicorn.Config(
        create_app(served), log_config=None, log_level="warning", lifespan="off", timeout_graceful_shutdown=5
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
