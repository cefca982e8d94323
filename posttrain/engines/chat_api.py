"""Any OpenAI-compatible endpoint as a policy that can only be prompted.

    policy = ChatApiPolicy.open("chat:http://localhost:8000/v1#my-model")      key: $OPENAI_API_KEY

The output form goes along as `response_format`: a JSON schema as it is; a closed set of labels wrapped as
{"label": one of them}, because the dialect wants an object, and unwrapped again from the reply.  An endpoint
that refuses a field we can do without is asked again without it; what was left out is said in `notes`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import httpx

from posttrain.engines._chat_dialect import Reply, ShowText, request_body
from posttrain.engines._chat_http import Patience, Refusal, Unreachable, post
from posttrain.engines._prompt_only import PromptOnly
from posttrain.renderers.messages import MessageRenderer
from posttrain.runs import SCHEMA, append_line, disk_errors, read_lines
from posttrain.types import (
    Completion,
    Message,
    OnText,
    Policy,
    Prompt,
    Renderer,
    RolloutError,
    Sampling,
    TokensUsed,
    UserError,
)

PREFIX = "chat:"

SPARED = {
    "response_format": "it takes no output schema: answers are formed by the instructions alone",
    "seed": "it takes no seed: sampled answers differ from run to run",
    "temperature": "it takes no temperature 0: its answers are sampled, not greedy",
    "stream_options": "it reports no token counts when it streams",
}
"""Fields an endpoint may refuse and still be asked, and what is then said of its answers."""


class ChatApiPolicy(PromptOnly):
    """A hosted model.  A prompt that fails raises RolloutError: ask for one prompt per call to keep the others.

    `replies_path`, when set, is a JSON-lines file that every reply is appended to, and that an identical request
    is answered from: a resumed run pays for nothing twice.  Leave it unset while measuring latency.
    `tokens_used` counts all replies, kept ones too: what was asked costs the same in a resumed run.
    """

    remote = True
    context_length = sys.maxsize  # not known here: the endpoint refuses what is too long
    sampling_bytes = 0

    def __init__(self, url: str, name: str, *, patience: Patience = Patience(), concurrency: int = 8) -> None:
        self.url, self.name, self.model = url.rstrip("/"), name, f"{PREFIX}{url}#{name}"
        self.renderer: Renderer = MessageRenderer()
        self.notes: list[str] = []
        self._patience, self._concurrency = patience, concurrency
        self._spared: set[str] = set()
        self._limit_field = "max_tokens"
        self.tokens_used = TokensUsed()
        self._reached = False
        self._replies_path: Path | None = None
        self._replies: dict[str, Reply] = {}
        self._connection: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient, asyncio.Semaphore] | None = None

    @staticmethod
    def open(spec: str, *, patience: Patience = Patience(), concurrency: int = 8) -> ChatApiPolicy:
        """The policy for `chat:URL#NAME`.  Nothing is sent yet.  Raises UserError when it is not of that form."""
        url, _, name = spec.removeprefix(PREFIX).partition("#")
        if not spec.startswith(PREFIX) or not name or not url.startswith(("http://", "https://")):
            raise UserError(
                "not a chat endpoint",
                place=spec,
                remedy="write chat:URL#NAME, for example chat:http://localhost:8000/v1#my-model",
            )
        return ChatApiPolicy(url, name, patience=patience, concurrency=concurrency)

    @property
    def replies_path(self) -> Path | None:
        return self._replies_path

    @replies_path.setter
    def replies_path(self, path: Path | None) -> None:
        self._replies_path = path
        self._replies = {} if path is None else _read_replies(path)

    async def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, sampling: Sampling, on_text: OnText | None = None
    ) -> list[list[Completion]]:
        """`n` completions per prompt, in order.  All prompts are tried, then the first failure is raised.

        Raises RolloutError("policy", ...) for a prompt that failed, UserError when no prompt can succeed.
        """
        if sampling.top_k:
            raise UserError("a chat endpoint has no top_k", place=self.model, remedy="leave top_k at 0")

        def shower(prompt: int) -> ShowText | None:
            return None if on_text is None else lambda choice, text: on_text(prompt, choice, text)

        answers = await asyncio.gather(
            *(
                self._answer(cast(tuple[Message, ...], prompt), n, sampling, shower(index))
                for index, prompt in enumerate(prompts)
            ),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return cast(list[list[Completion]], answers)

    async def _answer(
        self, messages: tuple[Message, ...], n: int, sampling: Sampling, show: ShowText | None
    ) -> list[Completion]:
        """Asks until there are `n` completions: some endpoints give one at a time, whatever `n` says."""
        completions: list[Completion] = []
        requests = 0
        whole = sampling.output is not None and bool(sampling.output.labels)  # a label is shown unwrapped
        while (done := len(completions)) < n:
            show_rest = None if show is None else _shifted(show, done)
            body = request_body(self.name, messages, n - done, sampling) | {"seed": sampling.seed + done}
            reply = await self._reply(body, None if whole else show_rest)
            received = reply.completions(messages, sampling, requests)
            requests += 1
            self.tokens_used += TokensUsed(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)
            if whole and show_rest is not None:
                for choice, completion in enumerate(received):
                    show_rest(choice, completion.text)
            completions += received
        return completions[:n]

    async def _reply(self, body: dict[str, Any], show: ShowText | None) -> Reply:
        """The kept reply to an identical request, else the endpoint's, which is then kept."""
        key = hashlib.sha256(json.dumps([self.url, body], sort_keys=True).encode()).hexdigest()
        if key in self._replies:
            for choice, text in enumerate(self._replies[key].texts):
                if show is not None:
                    show(choice, text)
            return self._replies[key]
        client, gate = self._connect()
        async with gate:
            started = time.monotonic()
            try:
                reply = await self._ask(client, body, show)
            except Unreachable as error:
                if self._reached:
                    raise  # it was there before: this request failed, not the run
                raise UserError(
                    f"cannot reach the endpoint: {error.message}", place=self.model, remedy="start it, or check the URL"
                ) from error
            reply.seconds = round(time.monotonic() - started, 4)
        self._reached = True
        if not reply.texts:
            raise RolloutError("policy", f"{self.url}: the reply holds no choices")
        if not reply.prompt_tokens:
            self._note("it reports no token counts: they are shown as 0")
        if self._replies_path is not None:
            append_line(
                self._replies_path,
                {"schema": SCHEMA, "key": key, "url": self.url, "request": body, "reply": asdict(reply)},
            )
            self._replies[key] = reply
        return reply

    async def _ask(self, client: httpx.AsyncClient, body: dict[str, Any], show: ShowText | None) -> Reply:
        """Sends the request; a refused field that can be spared is left out: for good, once that has helped."""
        if show is not None:
            body = body | {"stream": True, "stream_options": {"include_usage": True}}
        url = f"{self.url}/chat/completions"
        spared = set(self._spared)
        while True:
            sent = {name: value for name, value in body.items() if name not in spared}
            sent[self._limit_field] = sent.pop("max_tokens")
            reply = Reply()
            try:
                if show is None:
                    reply.read(await post(client, url, sent, self._patience))
                else:
                    await post(client, url, sent, self._patience, reply.reader(show))
            except Refusal as refusal:
                spared |= self._do_without(refusal, sent)
                continue
            for field in sorted(spared - self._spared):
                self._note(SPARED[field])
            self._spared |= spared
            return reply

    def _do_without(self, refusal: Refusal, sent: dict[str, Any]) -> set[str]:
        """The field to leave out so that the request may pass.  Raises when there is none."""
        if "max_tokens" in sent and "max_completion_tokens" in refusal.message:  # OpenAI's newer name for it
            self._limit_field = "max_completion_tokens"
            return set()
        named = refusal.parameter if refusal.parameter in sent else ""
        field = named or next((name for name in SPARED if name in sent and name in refusal.message), "")
        if not field and not refusal.parameter and "response_format" in sent:
            field = "response_format"  # the refusal says nothing of what was wrong: this is the likeliest
        if field in SPARED and (field != "temperature" or sent["temperature"] == 0):
            return {field}
        if field and field != "messages":
            raise UserError(
                f"the endpoint refuses {field}: {refusal.message}",
                place=self.model,
                remedy=f"change or leave out {field}",
            ) from refusal
        raise RolloutError("policy", f"{self.url}: {refusal.message}") from refusal

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _connect(self) -> tuple[httpx.AsyncClient, asyncio.Semaphore]:
        """The connections of the running event loop: they cannot outlive it."""
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection[0] is not loop:
            key = os.environ.get("OPENAI_API_KEY")
            client = httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=None)
            self._connection = loop, client, asyncio.Semaphore(self._concurrency)
        return self._connection[1:]

    async def close(self) -> None:
        """Closes the connections; the next request opens new ones."""
        if self._connection is not None and self._connection[0] is asyncio.get_running_loop():
            await self._connection[1].aclose()
        self._connection = None

    def frozen(self) -> Policy:
        """Itself: nothing here ever trains it."""
        return self


def _shifted(show: ShowText, by: int) -> ShowText:
    return lambda choice, text: show(by + choice, text)


def _read_replies(path: Path) -> dict[str, Reply]:
    """The replies kept at `path`.  A last line cut short by a kill is removed, so that appending goes on cleanly."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    return {record["key"]: Reply(**record["reply"]) for record in read_lines(path)}
