"""Verbs are plain functions, and work in a notebook too, where an event loop is already running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine; where an event loop is running, on another one in its own thread.

    Interrupting the caller cancels the work.
    """
    if not _inside_a_loop():
        return asyncio.run(work)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="posttrain", daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    finally:
        future.cancel()
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def away_from_loops(function: Callable[[], Result]) -> Result:
    """Calls a function that runs an event loop of its own."""
    if not _inside_a_loop():
        return function()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
