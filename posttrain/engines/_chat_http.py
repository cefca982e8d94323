"""One POST to a chat endpoint: a time limit, few and finite retries, and an error that says whose fault it was.

Only what may pass by itself is tried again: 429, 5xx, and a connection that failed before any text arrived.
A time-out is not (the work was done and paid for); nor is any other refusal.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from posttrain.types import RolloutError, UserError

Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]


class Refusal(Exception):
    """The endpoint answered 400 or 422.  `parameter` is the request field it named, "" when it named none."""

    def __init__(self, message: str, parameter: str) -> None:
        super().__init__(message)
        self.message, self.parameter = message, parameter


class Unreachable(RolloutError):
    """No connection came about, however often it was tried."""


class _Transient(Exception):
    """May pass by itself; `wait_seconds` is what the endpoint asked for (None: it did not say)."""

    def __init__(self, message: str, *, wait_seconds: float | None = None, reached: bool = True) -> None:
        super().__init__(message)
        self.wait_seconds, self.reached = wait_seconds, reached


@dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, how often to ask again, how long to pause between (doubling)."""

    timeout_seconds: float = 120.0
    attempts: int = 5
    pause_seconds: float = 0.5
    longest_pause_seconds: float = 60.0


async def post(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], patience: Patience, on_event: OnEvent | None = None
) -> Event:
    """The endpoint's reply; with `on_event` the body must ask for a stream, whose events go there instead.

    Raises Refusal (400, 422), UserError (no such endpoint or model, no access, no credit), Unreachable, or
    RolloutError for all else.
    """
    for attempt in range(1, patience.attempts + 1):
        try:
            async with asyncio.timeout(patience.timeout_seconds):
                return await _once(client, url, body, on_event)
        except TimeoutError as error:
            raise RolloutError("policy", f"{url}: no answer within {patience.timeout_seconds:g} seconds") from error
        except _Transient as error:
            pause = patience.pause_seconds * 2 ** (attempt - 1) * random.uniform(1.0, 1.5)
            if error.wait_seconds is not None:
                pause = error.wait_seconds
            if attempt == patience.attempts or pause > patience.longest_pause_seconds:
                asked = f" (it asks to wait {pause:.0f} seconds)" if error.wait_seconds is not None else ""
                tries = "1 attempt" if attempt == 1 else f"{attempt} attempts"
                failure = RolloutError if error.reached else Unreachable
                raise failure("policy", f"{url}: {error}, after {tries}{asked}") from error
        await asyncio.sleep(pause)
    raise ValueError("patience allows no attempt")


async def _once(client: httpx.AsyncClient, url: str, body: Mapping[str, Any], on_event: OnEvent | None) -> Event:
    begun = False
    try:
        async with client.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                raise _failure(url, response, (await response.aread()).decode(errors="replace"))
            if on_event is None:
                return _parse(url, (await response.aread()).decode(errors="replace"))
            async for event in _events(url, response):
                begun = True
                on_event(event)
            return {}
    except httpx.TransportError as error:
        reason = f"{type(error).__name__} {error}".strip()
        if begun:
            raise RolloutError("policy", f"{url}: the stream broke off: {reason}") from error
        raise _Transient(f"no connection: {reason}", reached=False) from error


async def _events(url: str, response: httpx.Response) -> AsyncIterator[Event]:
    """The events of a server-sent stream; one that ends without [DONE] was cut off."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = _parse(url, data)
        if event.get("error"):
            raise RolloutError("policy", f"{url}: {_error_message(event)}")
        yield event
    raise RolloutError("policy", f"{url}: the stream ended before its answer did")


def _parse(url: str, text: str) -> Event:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RolloutError("policy", f"{url}: the reply is not JSON: {text[:80]!r}") from error
    if not isinstance(value, dict):
        raise RolloutError("policy", f"{url}: the reply is not a JSON object: {text[:80]!r}")
    return value


def _failure(url: str, response: httpx.Response, text: str) -> Exception:
    """What a status other than 200 means for us."""
    try:
        reply = json.loads(text)
    except ValueError:
        reply = {}
    error = reply.get("error") if isinstance(reply, dict) else None
    details = error if isinstance(error, dict) else {}
    status = response.status_code
    message = f"{status} {_error_message(reply) or text[:200] or response.reason_phrase}"
    if status in (401, 403):
        return UserError(
            f"the endpoint refuses access: {message}",
            place=url,
            remedy="set OPENAI_API_KEY to a key that may use this model",
        )
    if status == 404:
        return UserError(
            f"no such endpoint or model: {message}",
            place=url,
            remedy="check chat:URL#NAME; URL usually ends in /v1, GET URL/models lists the names",
        )
    if details.get("code") == "insufficient_quota":
        return UserError(f"the account has no credit left: {message}", place=url, remedy="add credit and run again")
    if status == 429 or status >= 500:
        return _Transient(message, wait_seconds=_retry_after(response))
    if status in (400, 422):
        return Refusal(message, str(details.get("param") or ""))
    return RolloutError("policy", f"{url}: {message}")


def _error_message(reply: Any) -> str:
    error = reply.get("error") if isinstance(reply, dict) else None
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error or "")


def _retry_after(response: httpx.Response) -> float | None:
    """The wait the endpoint asks for, in seconds (RFC 9110 section 10.2.3: a number or a date)."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
