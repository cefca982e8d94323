"""What a chat-completions request asks for, in our own words; every field is honoured or refused by name.

Sampling fields that are not sent stay as the candidate was evaluated: greedy, and in its task's output form.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from posttrain.server.errors import ApiError
from posttrain.server.tool_calls import Tool, ToolCall
from posttrain.types import Message, Output, Role, Row, Sampling

HARMLESS = {"user", "metadata", "store", "safety_identifier", "prompt_cache_key"}
"""Fields that say something about the request and nothing about its answer."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
"""Fields we have no means to honour, with the values (besides null) that ask for nothing."""

SAMPLING = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "response_format")


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _several(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[TextPart] | None, BeforeValidator(_parts)] = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    wanted: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None  # the constraint is strict either way


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class ChatBody(BaseModel):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(extra="allow")  # so that what we do not know is refused by its name, in `check`
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]] | None, BeforeValidator(_several)] = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    contexts: list[Annotated[str, Field(min_length=1)]] | None = None  # ours: passages, as in a task's rows
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def sampling_fields(self) -> list[str]:
        """The sampling fields that were sent."""
        return [name for name in SAMPLING if getattr(self, name) is not None]

    @property
    def fields_for_a_model(self) -> list[str]:
        """The fields that were sent and mean something only to a model."""
        form = self.response_format is not None and self.response_format.type != "text"
        sent = {"response_format": form, "tools": self.tools, "contexts": self.contexts}
        return [name for name, value in sent.items() if value]


def check(body: ChatBody) -> None:
    """Raises ApiError for the first field that asks for something we would have to ignore."""
    for name, value in (body.model_extra or {}).items():
        if name not in HARMLESS and value is not None and value not in NEUTRAL.get(name, ()):
            raise ApiError(f"{name} is not supported here; leave it out", param=name, code="unsupported_parameter")
    if body.tool_choice not in (None, "auto", "none"):
        raise ApiError(
            "a call cannot be made sure of; leave tool_choice out", param="tool_choice", code="unsupported_parameter"
        )
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options needs stream: true", param="stream_options", code="invalid_value")
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise ApiError(
            "max_tokens and max_completion_tokens differ; send one", param="max_tokens", code="invalid_value"
        )


def to_row(body: ChatBody, request_id: str) -> Row:
    """The row to answer.  Raises ApiError for what cannot be read as one."""
    messages = tuple(_message(message, f"messages[{index}]") for index, message in enumerate(body.messages))
    if messages[-1].role not in ("user", "tool"):
        raise ApiError(
            "the last message must come from the user or a tool: nothing else asks for an answer",
            param="messages",
            code="invalid_value",
        )
    tools = tuple(tool.sent for tool in body.tools or ())
    return Row(id=request_id, messages=messages, tools=tools, contexts=tuple(body.contexts or ()))


def to_sampling(body: ChatBody, served: Output) -> Sampling | None:
    """How to sample for `body` from a candidate that is served with the output form `served`.

    None when no sampling field was sent: as evaluated.  With a temperature and no seed every request differs.
    """
    if not body.sampling_fields:
        return None
    output = served
    if body.response_format is not None and body.response_format.type != "text":
        output = Output(schema=_schema(body.response_format))
    return Sampling(
        max_tokens=body.token_limit or served.max_tokens,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        stop=tuple(body.stop or ()),
        output=output,
    )


def _message(message: ChatMessage, place: str) -> Message:
    for name, value in (message.model_extra or {}).items():
        if value not in (None, [], {}):
            raise ApiError(
                f"{place}.{name} is not supported here; leave it out",
                param=f"{place}.{name}",
                code="unsupported_parameter",
            )
    if message.content is None and not message.tool_calls:
        raise ApiError(f"{place}.content is missing", param=f"{place}.content", code="invalid_value")
    text = "".join(part.text for part in message.content or ())
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ApiError(
            f"{place}.content holds half of a surrogate pair", param=f"{place}.content", code="invalid_value"
        )
    role: Role = "system" if message.role == "developer" else message.role
    calls = tuple(call.sent for call in message.tool_calls or ())
    return Message(role, text, tool_calls=calls, tool_call_id=message.tool_call_id or "")


def _schema(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        raise ApiError(
            "response_format.json_schema is missing", param="response_format.json_schema", code="invalid_value"
        )
    return wanted.json_schema.wanted
