"""Apps and servers on a free loopback port, in a thread of their own: tests speak to them over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Queue
from typing import Any

import uvicorn
from fastapi import FastAPI

from posttrain.server.app import serve
from posttrain.server.served import Served
from posttrain.types import Candidate


@contextmanager
def serving(candidates: Mapping[str, Candidate]) -> Iterator[str]:
    """The URL of our server over `candidates`."""
    with _in_thread(lambda ready: serve(Served(candidates), port=0, ready=ready)) as url:
        yield url


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The URL of any app."""

    async def run(ready: Callable[[str], None]) -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, log_level="critical", lifespan="off",
                                               timeout_graceful_shutdown=0))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        ready(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            server.should_exit = True
            await task

    with _in_thread(run) as url:
        yield url


@contextmanager
def _in_thread(run: Callable[[Callable[[str], None]], Coroutine[Any, Any, None]]) -> Iterator[str]:
    started: Queue[Any] = Queue()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        task = asyncio.create_task(run(started.put))
        stopped.append(task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    def work() -> None:
        try:
            loop.run_until_complete(main())
        except BaseException as error:
            started.put(error)
        finally:
            loop.close()

    stopped: list[Callable[[], bool]] = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    url = started.get(timeout=10)
    if isinstance(url, BaseException):
        raise url
    try:
        yield url
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stopped[0])
        thread.join(timeout=10)
        assert not thread.is_alive()
