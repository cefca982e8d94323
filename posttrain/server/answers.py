"""Asking a candidate: checked against what it can do, given up when the client hangs up, streamed as it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import TypeVar

from starlette.requests import Request

from posttrain.server.chat_request import ChatBody, to_row, to_sampling
from posttrain.server.errors import ApiError
from posttrain.types import Candidate, Completion, OnText, Output, Rollout, Row, Sampling

T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up: nobody is left to answer."""


@dataclass(frozen=True)
class Text:
    """New text of one choice."""

    choice: int
    text: str


@dataclass(frozen=True)
class Question:
    """A request that has been found answerable."""

    candidate: Candidate
    row: Row
    n: int
    sampling: Sampling | None
    body: ChatBody

    async def answer(self) -> list[Completion]:
        """The whole answer.  Raises ApiError (or UserError) when there is none."""
        return await self._attempt(None)

    async def stream(self) -> AsyncIterator[Text | list[Completion]]:
        """The answer's text as it comes, then the completions.  Closing this stops the candidate."""
        heard: asyncio.Queue[Text | None] = asyncio.Queue()

        def hear(_: int, choice: int, text: str) -> None:
            heard.put_nowait(Text(choice, text))

        work = asyncio.create_task(self._attempt(hear if _has_model(self.candidate) else None))
        work.add_done_callback(lambda _: heard.put_nowait(None))
        shown = [""] * self.n
        try:
            while (news := await heard.get()) is not None:
                shown[news.choice] += news.text
                yield news
            completions = await work
            for choice, completion in enumerate(completions):  # what a candidate says only at the end
                if not completion.text.startswith(shown[choice]):
                    raise ApiError("what was streamed is not what was answered", status=500)
                if rest := completion.text[len(shown[choice]) :]:
                    yield Text(choice, rest)
            yield completions
        finally:
            work.cancel()

    async def _attempt(self, on_text: OnText | None) -> list[Completion]:
        (rollouts,) = await self.candidate.attempt([self.row], n=self.n, sampling=self.sampling, on_text=on_text)
        return [self._completion(rollout) for rollout in rollouts]

    def _completion(self, rollout: Rollout) -> Completion:
        if rollout.error or rollout.completion is None:
            raise ApiError(rollout.error or "no answer", status=500)
        if _has_model(self.candidate):
            return rollout.completion
        return _within(rollout.completion, self.body)


def question(candidate: Candidate, body: ChatBody, request_id: str) -> Question:
    """What is asked of `candidate`.  Raises ApiError for a field that it cannot honour."""
    row = to_row(body, request_id)
    if not _has_model(candidate):
        if body.response_format is not None and body.response_format.type != "text":
            raise ApiError(
                f"{candidate.name} has no model in it: its answers cannot be given another form",
                param="response_format",
                code="unsupported_parameter",
            )
        return Question(candidate, row, body.n or 1, None, body)
    served: Output | None = getattr(candidate, "output", None)
    votes = getattr(candidate, "votes", 1) > 1  # one sample taken otherwise would not be what was evaluated
    if (served is None or votes) and body.sampling_fields:
        field = body.sampling_fields[0]
        raise ApiError(
            f"{candidate.name} answers only as it was evaluated; leave {field} out",
            param=field,
            code="unsupported_parameter",
        )
    return Question(candidate, row, body.n or 1, to_sampling(body, served or Output()), body)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled, raising ClientGone, when the client hangs up first."""
    task, gone = asyncio.ensure_future(work), asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _has_model(candidate: Candidate) -> bool:
    return candidate.kind in ("prompt", "weights")


def _within(completion: Completion, body: ChatBody) -> Completion:
    """The answer of a candidate without a model, under the request's `stop` and token limit.

    Its distribution is a single text, so temperature, top_p and seed are honoured as they are.  It has no
    tokens, but no tokeniser makes more tokens than bytes: a limit that might be broken is refused.
    """
    ends = [position for stop in body.stop or () if (position := completion.text.find(stop)) >= 0]
    text = completion.text[: min(ends)] if ends else completion.text
    size = len(text.encode())
    if body.token_limit is not None and size > body.token_limit:
        raise ApiError(
            f"the answer has {size} bytes and, made without a model, no tokens to count: "
            f"leave the limit out or raise it to {size}",
            param="max_tokens",
            code="unsupported_value",
        )
    return replace(completion, text=text)
