"""Asking a candidate: checked against what it can do, given up when the client hangs up, streamed as it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from typing import TypeVar

from starlette.requests import Request

from posttrain.server.chat_request import ChatBody, to_row, to_sampling
from posttrain.server.errors import ApiError
from posttrain.server.tool_calls import Call, Tools, may_be_a_call, read_calls
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
class Choice:
    """One whole answer, and the tool calls that its text is, if it is any."""

    completion: Completion
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Question:
    """A request that has been found answerable.  `tools` are those the candidate will be shown."""

    candidate: Candidate
    row: Row
    n: int
    sampling: Sampling | None
    body: ChatBody
    tools: Tools = ()

    async def answer(self) -> list[Choice]:
        """The whole answer.  Raises ApiError (or UserError) when there is none."""
        return await self._attempt(None)

    async def stream(self) -> AsyncIterator[Text | list[Choice]]:
        """The answer's text as it comes, then the choices.  Closing this stops the candidate.

        Text that may yet turn out to be a tool call is held back.
        """
        news: asyncio.Queue[Text | None] = asyncio.Queue()

        def hear(_: int, choice: int, text: str) -> None:
            news.put_nowait(Text(choice, text))

        work = asyncio.create_task(self._attempt(hear if _has_model(self.candidate) else None))
        work.add_done_callback(lambda _: news.put_nowait(None))
        heard, shown = [""] * self.n, [0] * self.n
        try:
            while (new := await news.get()) is not None:
                heard[new.choice] += new.text
                if not (self.tools and may_be_a_call(heard[new.choice])):
                    yield Text(new.choice, heard[new.choice][shown[new.choice] :])
                    shown[new.choice] = len(heard[new.choice])
            choices = await work
            for i, choice in enumerate(choices):  # what a candidate says only at the end
                if not choice.completion.text.startswith(heard[i]):
                    raise ApiError("what was streamed is not what was answered", status=500)
                if not choice.calls and (rest := choice.completion.text[shown[i] :]):
                    yield Text(i, rest)
            yield choices
        finally:
            work.cancel()

    async def _attempt(self, on_text: OnText | None) -> list[Choice]:
        (rollouts,) = await self.candidate.attempt([self.row], n=self.n, sampling=self.sampling, on_text=on_text)
        return [self._choice(self._completion(rollout)) for rollout in rollouts]

    def _choice(self, completion: Completion) -> Choice:
        calls = tuple(read_calls(completion.text, self.tools)) if self.tools else ()
        if len(calls) > 1 and self.body.parallel_tool_calls is False:
            return Choice(completion)
        return Choice(completion, calls)

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
        if body.fields_for_a_model:
            raise _refused(body.fields_for_a_model[0], f"{candidate.name} has no model in it")
        return Question(candidate, row, body.n or 1, None, body)
    if getattr(candidate, "passages", 0) and body.contexts:
        raise _refused("contexts", f"{candidate.name} retrieves its own passages")
    tools: Tools = row.tools or getattr(candidate, "tools", ())
    if tools and body.tool_choice == "none":
        raise _refused("tool_choice", f"{candidate.name} is shown tools and may call them")
    served: Output | None = getattr(candidate, "output", None)
    votes = getattr(candidate, "votes", 1) > 1  # one sample taken otherwise would not be what was evaluated
    if (served is None or votes) and body.sampling_fields:
        raise _refused(body.sampling_fields[0], f"{candidate.name} answers only as it was evaluated")
    return Question(candidate, row, body.n or 1, to_sampling(body, served or Output()), body, tools)


def _refused(field: str, why: str) -> ApiError:
    return ApiError(f"{why}; leave {field} out", param=field, code="unsupported_parameter")


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
