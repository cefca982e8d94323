"""OpenAI's chat completions over a set of candidates; each answers as it was evaluated."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from posttrain.server.access import Asker, Models
from posttrain.server.answers import Choice, ClientGone, Text, question, unless_gone
from posttrain.server.chat_request import ChatBody, check
from posttrain.server.errors import ApiError, from_user_error
from posttrain.types import UserError

CLIENT_CLOSED_REQUEST = 499
"""Nginx's status for a client that hung up; nobody reads it but the access log."""


router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(served: Models, body: ChatBody, request: Request, whose: Asker) -> Response:
    check(body)
    reply = _Reply(body)
    asked = question(await served.candidate(body.model, whose), body, reply.id)
    try:
        if not body.stream:
            return JSONResponse(reply.whole(await unless_gone(request, asked.answer())))
        events = asked.stream()
        head = await unless_gone(request, anext(events))  # what fails before the first text gets its own status
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return StreamingResponse(reply.stream(head, events), media_type="text/event-stream")


class _Reply:
    """One reply in the dialect's words, whole or in chunks."""

    def __init__(self, body: ChatBody) -> None:
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self.model = body.model
        self.counts_tokens = body.stream_options is not None and body.stream_options.include_usage

    def whole(self, said: list[Choice]) -> dict[str, Any]:
        choices = [
            {"index": index, "message": _message(choice), "logprobs": None, "finish_reason": _finish_reason(choice)}
            for index, choice in enumerate(said)
        ]
        return self._head("chat.completion") | {"choices": choices, "usage": _usage(said)}

    async def stream(self, head: Text | list[Choice], rest: AsyncIterator[Text | list[Choice]]) -> AsyncIterator[str]:
        """Server-sent events, [DONE] at the end; a failure under way becomes an event that the client raises."""
        begun: set[int] = set()
        try:
            for event in self._chunks(head, begun):
                yield _sent(event)
            async for news in rest:
                for event in self._chunks(news, begun):
                    yield _sent(event)
        except (ApiError, UserError) as error:
            yield _sent((from_user_error(error) if isinstance(error, UserError) else error).body)
        except Exception:
            yield _sent(ApiError("internal error; the server's log says more", status=500).body)
            raise
        else:
            yield "data: [DONE]\n\n"

    def _chunks(self, news: Text | list[Choice], begun: set[int]) -> Iterator[dict[str, Any]]:
        if isinstance(news, Text):
            role = {} if news.choice in begun else {"role": "assistant"}
            begun.add(news.choice)
            yield self._chunk(news.choice, role | {"content": news.text}, None)
            return
        for index, choice in enumerate(news):
            if choice.calls:
                numbered = [{"index": number, **call} for number, call in enumerate(choice.calls)]
                yield self._chunk(index, {"role": "assistant", "content": None, "tool_calls": numbered}, None)
            said_nothing = index not in begun and not choice.calls
            role = {"role": "assistant", "content": ""} if said_nothing else {}
            yield self._chunk(index, role, _finish_reason(choice))
        if self.counts_tokens:
            yield self._head("chat.completion.chunk") | {"choices": [], "usage": _usage(news)}

    def _chunk(self, choice: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choices = [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        usage = {"usage": None} if self.counts_tokens else {}
        return self._head("chat.completion.chunk") | {"choices": choices} | usage

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _message(choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.completion.text, "refusal": None}
    return message | {"content": None, "tool_calls": list(choice.calls)} if choice.calls else message


def _finish_reason(choice: Choice) -> str:
    return "tool_calls" if choice.calls else choice.completion.stop_reason


def _usage(choices: list[Choice]) -> dict[str, int]:
    """Tokens of the request; the prompt is one, however many choices were drawn from it."""
    prompt = choices[0].completion.prompt_tokens
    completion = sum(choice.completion.completion_tokens for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _sent(event: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
