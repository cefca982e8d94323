"""The words of OpenAI's chat completions, as a client speaks them: our sampling out, its replies in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.types import Completion, Message, Output, RolloutError, Sampling, StopReason

LABEL_ROOM = 16
"""Tokens beyond the answer's own for the object that a label is asked for in; what is not used is not billed."""

ShowText = Callable[[int, str], None]
"""Called with (index of the choice, new text) while a reply streams in."""


@dataclass
class Reply:
    """What came back for one request: a text per choice; tokens are those of all choices together."""

    texts: list[str] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0

    def read(self, reply: Mapping[str, Any]) -> None:
        """Takes a whole reply.  Raises RolloutError when it is none."""
        for index, choice in enumerate(_choices(reply)):
            self._open(index)
            self.texts[index] = _text(choice.get("message"))
            self.finish_reasons[index] = str(choice.get("finish_reason") or "stop")
        self._count(reply)

    def reader(self, show: ShowText) -> Callable[[Mapping[str, Any]], None]:
        """Takes the events of a stream, one a call, and shows their text."""
        return lambda chunk: self._read_chunk(chunk, show)

    def _read_chunk(self, chunk: Mapping[str, Any], show: ShowText) -> None:
        for choice in _choices(chunk):
            index = int(choice.get("index") or 0)
            self._open(index)
            if text := _text(choice.get("delta")):
                self.texts[index] += text
                show(index, text)
            if reason := choice.get("finish_reason"):
                self.finish_reasons[index] = str(reason)
        self._count(chunk)

    def completions(self, messages: tuple[Message, ...], sampling: Sampling, request: int = 0) -> list[Completion]:
        """One per choice.  The tokens written are shared out evenly, so that they add up to what was billed; each has
        those of the prompt, which are billed once a `request`."""
        labels = sampling.output.labels if sampling.output else ()
        share, rest = divmod(self.completion_tokens, len(self.texts))
        return [
            Completion(
                text=_unwrapped(text) if labels else text,
                stop_reason=_stop_reason(reason),
                prompt=messages,
                prompt_tokens=self.prompt_tokens,
                completion_tokens=share + (index < rest),
                cached_tokens=self.cached_tokens,
                request=request,
            )
            for index, (text, reason) in enumerate(zip(self.texts, self.finish_reasons, strict=True))
        ]

    def _open(self, index: int) -> None:
        while len(self.texts) <= index:
            self.texts.append("")
            self.finish_reasons.append("stop")

    def _count(self, reply: Mapping[str, Any]) -> None:
        usage = reply.get("usage") or {}
        self.prompt_tokens = int(usage.get("prompt_tokens") or self.prompt_tokens)
        self.completion_tokens = int(usage.get("completion_tokens") or self.completion_tokens)
        details = usage.get("prompt_tokens_details") or {}
        self.cached_tokens = int(details.get("cached_tokens") or self.cached_tokens)


def request_body(model: str, messages: Sequence[Message], n: int, sampling: Sampling) -> dict[str, Any]:
    """The request.  What equals the endpoint's own default is not sent, so that little can be refused.

    Messages are bare texts: the renderer has put tools into words.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_tokens + (LABEL_ROOM if sampling.output and sampling.output.labels else 0),
        "seed": sampling.seed,
    }
    if n > 1:
        body["n"] = n
    if sampling.top_p != 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if schema := _schema(sampling.output):
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return body


def _schema(output: Output | None) -> Mapping[str, Any] | None:
    """The JSON schema to ask for.  The dialect wants an object, so a label is asked for inside one."""
    if output is None or not output.labels:
        return output.schema if output else None
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(output.labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def _unwrapped(text: str) -> str:
    """The label out of the object it was asked for in; an endpoint that wrote bare text is taken at its word."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value["label"] if isinstance(value, dict) and isinstance(value.get("label"), str) else text


def _choices(reply: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise RolloutError("policy", f"the reply holds no list of choices: {json.dumps(reply)[:80]}")
    return choices


def _text(message: Any) -> str:
    """What was said; a model that declines under a schema says so in `refusal` instead."""
    if not isinstance(message, dict):
        raise RolloutError("policy", "a choice in the reply holds no message")
    return str(message.get("content") or message.get("refusal") or "")


def _stop_reason(finish_reason: str) -> StopReason:
    if finish_reason == "content_filter":
        raise RolloutError("policy", "the endpoint's content filter withheld the answer")
    return "length" if finish_reason == "length" else "stop"
