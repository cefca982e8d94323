"""The chat dialect over real HTTP, spoken by OpenAI's own client, unmodified."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from babbler import Babbler
from live_server import serving

from posttrain.server.app import serve
from posttrain.server.calling import how_to_call
from posttrain.server.served import Served
from posttrain.types import Completion, Rollout, UserError


class Floor(Babbler):
    """No model in it: one answer to everything, whatever the sampling."""

    async def attempt(self, rows: Any, *, n: int = 1, sampling: Any = None, on_text: Any = None) -> Any:
        assert sampling is None and on_text is None
        return [[Rollout(row, completion=Completion("billing | low", "stop")) for _ in range(n)] for row in rows]


LOOK = {"type": "function", "function": {"parameters": {"type": "object", "required": ["q"]}, "name": "look"}}
CALL = '{"name": "look", "arguments": {"q": 1}}'
BABBLER = Babbler()
SLOW = Babbler(name="slow", pause_seconds=0.05)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    candidates = {"babbler": BABBLER, "slow": SLOW, "floor": Floor(name="floor", kind="floor"),
                  "sft+grpo/1": Babbler(), "failing": Babbler(error="policy: out of memory"),
                  "broken": Babbler(raises=ZeroDivisionError("secret detail")),
                  "fussy": Babbler(raises=UserError("the row is too long", place="row", remedy="shorten it"))}
    with serving(candidates) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none")


def ask(client: openai.OpenAI, text: str = "where is my order", **settings: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(**{"model": "babbler", "messages": messages, **settings})


def refusal(client: openai.OpenAI, **settings: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        ask(client, **settings)
    return raised.value


# --- as evaluated ------------------------------------------------------------------------------------------


def test_without_sampling_fields_the_candidate_answers_as_it_was_evaluated(client: openai.OpenAI) -> None:
    reply = ask(client, "where is my order", user="u1", metadata={"k": "v"}, store=False, n=2)
    assert BABBLER.samplings[-1] is None
    assert [choice.message.content for choice in reply.choices] == ["where is my order"] * 2
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (4, 8, 12)
    assert reply.model == "babbler"


def test_a_conversation_reaches_the_candidate_whole(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    client.chat.completions.create(model="babbler", messages=[
        {"role": "developer", "content": "be brief"}, {"role": "user", "content": [
            {"type": "text", "text": "look "}, {"type": "text", "text": "here"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "seen", "tool_call_id": "c1"}])
    messages = BABBLER.heard[-1].messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert [message.content for message in messages] == ["be brief", "look here", "", "seen"]
    assert messages[2].tool_calls == (call,) and messages[3].tool_call_id == "c1"


def test_a_reply_can_be_sent_back_as_the_client_gives_it(client: openai.OpenAI) -> None:
    said = ask(client).choices[0].message
    client.chat.completions.create(model="babbler", messages=[
        {"role": "user", "content": "hello"}, said.model_dump(), {"role": "user", "content": "and now"}])
    assert BABBLER.heard[-1].messages[1].content == said.content


# --- sampling fields ---------------------------------------------------------------------------------------


def test_sampling_fields_reach_the_candidate_and_keep_its_output_form(client: openai.OpenAI) -> None:
    ask(client, temperature=0.7, top_p=0.9, seed=5, stop=["a", "b"], max_tokens=3)
    sampling = BABBLER.samplings[-1]
    assert sampling is not None
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.stop, sampling.max_tokens) == (
        0.7, 0.9, 5, ("a", "b"), 3)
    assert sampling.output is BABBLER.output
    ask(client, seed=5)
    assert BABBLER.samplings[-1].max_tokens == 6 and BABBLER.samplings[-1].temperature == 0  # as evaluated


def test_seeds_change_the_answer_and_repeat_it(client: openai.OpenAI) -> None:
    answers = {seed: ask(client, temperature=1, seed=seed).choices[0].message.content for seed in range(4)}
    assert len(set(answers.values())) == 4
    assert ask(client, temperature=1, seed=2).choices[0].message.content == answers[2]
    unseeded = {ask(client, temperature=1).choices[0].message.content for _ in range(4)}
    assert len(unseeded) > 1


def test_the_length_and_the_stop_are_kept(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        reply = ask(client, "one two three", **{name: 2})
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "length")
    reply = ask(client, "one two three", stop=" three")
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "stop")


def test_a_response_format_replaces_the_output_form(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"words": {"type": "array"}}}
    ask(client, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}})
    assert BABBLER.samplings[-1].output.schema == schema
    assert ask(client, response_format={"type": "json_object"}).choices[0].message.content.startswith('{"words"')
    ask(client, response_format={"type": "text"})
    assert BABBLER.samplings[-1].output is BABBLER.output


# --- streaming ---------------------------------------------------------------------------------------------


def test_a_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client, n=2, temperature=1, seed=3)
    chunks = list(ask(client, n=2, temperature=1, seed=3, stream=True, stream_options={"include_usage": True}))
    texts, reasons = ["", ""], ["", ""]
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == ["stop", "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len(chunks) > 10  # word by word
    assert len({chunk.id for chunk in chunks}) == 1


def test_text_arrives_while_the_candidate_still_speaks(client: openai.OpenAI) -> None:
    began, times = time.monotonic(), []
    for _ in ask(client, "a b c d", model="slow", stream=True):
        times.append(time.monotonic() - began)
    assert times[-1] - times[0] > 0.1


def test_an_answer_given_only_at_the_end_is_streamed_too(client: openai.OpenAI) -> None:
    chunks = list(ask(client, model="floor", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "billing | low"
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_stops_the_candidate(stream: bool) -> None:
    slow = Babbler(pause_seconds=0.05)
    with serving({"slow": slow}) as address:
        body = {"model": "slow", "messages": [{"role": "user", "content": "word " * 400}], "stream": stream,
                "max_tokens": 400}
        if stream:
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{address}/v1/chat/completions", json=body, timeout=0.2)
        deadline = time.monotonic() + 3
        while not slow.cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        assert slow.cancelled == 1 and slow.at_once == 0
        assert httpx.get(f"{address}/healthz").json() == {"status": "ok", "models": ["slow"]}


# --- several at once ---------------------------------------------------------------------------------------


def test_eight_clients_are_answered_at_once_each_with_its_own_answer(url: str) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"client {number}"}]
        if number % 2:
            reply = await client.chat.completions.create(model="slow", messages=messages)
            return reply.choices[0].message.content or ""
        stream = await client.chat.completions.create(model="slow", messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    assert asyncio.run(all_of_them()) == [f"client {number}" for number in range(8)]
    assert SLOW.most_at_once == 8


# --- tools -------------------------------------------------------------------------------------------------


def test_tools_of_a_request_reach_the_candidate_as_they_were_sent(client: openai.OpenAI) -> None:
    reply = ask(client, "I shall look", tools=[LOOK], tool_choice="auto", extra_body={"contexts": ["one", "two"]})
    row = BABBLER.heard[-1]
    assert json.dumps(row.tools) == json.dumps([LOOK]) and row.contexts == ("one", "two")
    assert reply.choices[0].message.content == "I shall look" and reply.choices[0].message.tool_calls is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_calls_a_tool_comes_back_as_a_call_and_can_be_sent_back(client: openai.OpenAI,
                                                                             stream: bool) -> None:
    if stream:
        with client.chat.completions.stream(model="babbler", messages=[{"role": "user", "content": CALL}],
                                            tools=[LOOK]) as events:  # type: ignore[list-item]
            reply: Any = events.get_final_completion()
    else:
        reply = ask(client, CALL, tools=[LOOK])
    message = reply.choices[0].message
    assert (reply.choices[0].finish_reason, message.content) == ("tool_calls", None)
    called = message.tool_calls[0]
    assert (called.type, called.function.name, json.loads(called.function.arguments)) == ("function", "look", {"q": 1})
    client.chat.completions.create(model="babbler", tools=[LOOK], messages=[  # type: ignore[list-item]
        {"role": "user", "content": "hello"}, message.model_dump(),
        {"role": "tool", "tool_call_id": called.id, "content": "seen"}])
    assert [one.role for one in BABBLER.heard[-1].messages] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_call_of_a_tool_that_was_shown_is_text(client: openai.OpenAI, stream: bool) -> None:
    strict = {"type": "function", "function": {**LOOK["function"], "strict": True}}
    for text, tools in [(CALL, None), (CALL.replace("look", "hear"), [LOOK]), ('{"q": 1}', [LOOK]),
                        (CALL.replace("q", "p"), [strict]), ("{ no JSON", [LOOK]), (CALL[:-1], [LOOK])]:
        settings = {"tools": tools} if tools else {}
        reply = ask(client, text, stream=stream, **settings)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in reply) if stream else reply.choices[0].message.content
        assert said == text


def test_several_calls_unless_one_at_a_time_is_asked_for(client: openai.OpenAI) -> None:
    both = json.dumps({"tool_calls": [json.loads(CALL)] * 2}, separators=(",", ":"))
    calls = ask(client, both, tools=[LOOK]).choices[0].message.tool_calls
    assert len(calls) == 2 and calls[0].id != calls[1].id
    assert ask(client, both, tools=[LOOK], parallel_tool_calls=False).choices[0].message.content == both


# --- models ------------------------------------------------------------------------------------------------


def test_models_are_listed_and_shown_by_name(client: openai.OpenAI) -> None:
    assert "sft+grpo/1" in [model.id for model in client.models.list()]
    assert client.models.retrieve("sft+grpo/1").id == "sft+grpo/1"
    assert ask(client, model="sft+grpo/1").model == "sft+grpo/1"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("nobody")
    assert raised.value.code == "model_not_found"


# --- refusals ----------------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    error = refusal(client, model="gpt-9")
    assert isinstance(error, openai.NotFoundError)
    assert (error.param, error.code) == ("model", "model_not_found") and "babbler" in error.message


@pytest.mark.parametrize(("settings", "param"), [
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"presence_penalty": -1}, "presence_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"logprobs": True}, "logprobs"),
    ({"tools": [{"type": "function", "function": {"description": "f"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "thing"}}}]},
     "tools[0].function.parameters"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "http://localhost:9/f"}}}]},
     "tools[0].function.parameters"),
    ({"tools": [LOOK], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [LOOK], "tool_choice": "none"}, "tool_choice"),
    ({"tools": [LOOK], "model": "floor"}, "tools"),
    ({"extra_body": {"contexts": ["p"]}, "model": "floor"}, "contexts"),
    ({"extra_body": {"contexts": [""]}}, "contexts[0]"),
    ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
        {"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages[1].tool_calls[0].function.arguments"),
    ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [{"id": "c"}]},
                   {"role": "user", "content": "x"}]}, "messages[1].tool_calls[0].type"),
    ({"extra_body": {"min_p": 0.1}}, "min_p"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 0}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ({"stop": ["x", ""]}, "stop[1]"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"colour": 1}}, "stream_options.colour"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
    ({"messages": [{"role": "owner", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "hi", "name": "Ann"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages[0].content[0].type"),
])
def test_what_cannot_be_honoured_is_refused_by_name(client: openai.OpenAI, settings: Any, param: str) -> None:
    before = len(BABBLER.samplings)
    error = refusal(client, **settings)
    assert isinstance(error, openai.BadRequestError)
    assert error.param == param and error.type == "invalid_request_error" and error.code
    assert len(BABBLER.samplings) == before


def test_fields_that_ask_for_nothing_are_accepted(client: openai.OpenAI) -> None:
    assert ask(client, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, logprobs=False, tools=[],
               tool_choice="none", parallel_tool_calls=True, temperature=None, stop=None).choices


def test_a_body_that_is_not_json_is_refused(url: str) -> None:
    for kind, message in (("application/json", "not valid JSON"), ("text/plain", "Content-Type: application/json")):
        response = httpx.post(f"{url}/v1/chat/completions", content=b'{"model": ', headers={"Content-Type": kind})
        assert response.status_code == 400 and message in response.json()["error"]["message"]
    half = b'{"model": "babbler", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    response = httpx.post(f"{url}/v1/chat/completions", content=half, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and "surrogate" in response.json()["error"]["message"]
    response = httpx.get(f"{url}/v1/nothing")
    assert response.status_code == 404 and response.json()["error"]["type"] == "invalid_request_error"


def test_a_candidate_without_a_model_keeps_limits_it_can_prove(client: openai.OpenAI) -> None:
    answer = ask(client, model="floor", temperature=1, seed=3, max_tokens=13, stop=" |")
    assert answer.choices[0].message.content == "billing"
    assert ask(client, model="floor", max_tokens=13).choices[0].message.content == "billing | low"
    assert refusal(client, model="floor", max_tokens=12).param == "max_tokens"
    assert refusal(client, model="floor", response_format={"type": "json_object"}).param == "response_format"


# --- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_failed_rollout_is_a_server_error_told_once(client: openai.OpenAI, stream: bool) -> None:
    error = refusal(client, model="failing", stream=stream)
    assert isinstance(error, openai.InternalServerError)
    assert "policy: out of memory" in error.message and error.type == "server_error"
    assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False])
def test_a_user_error_is_a_bad_request(client: openai.OpenAI, stream: bool) -> None:
    error = refusal(client, model="fussy", stream=stream)
    assert isinstance(error, openai.BadRequestError) and "shorten it" in error.message


def test_a_defect_shows_no_detail(client: openai.OpenAI) -> None:
    error = refusal(client, model="broken")
    assert isinstance(error, openai.InternalServerError) and "secret" not in str(error)


def test_an_address_in_use_is_the_users_to_solve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen"):
        asyncio.run(serve(Served({"babbler": BABBLER}), port=taken.getsockname()[1]))


def test_the_python_call_we_print_works(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    curl, python = how_to_call(url, "sft+grpo/1").split("\n\n", 1)
    assert curl.startswith(f"curl {url}/v1/chat/completions ")
    exec(python, {})
    assert capsys.readouterr().out == "...\n"


def test_a_server_leaves_the_logging_of_its_process_alone() -> None:
    closed = []
    theirs = logging.NullHandler()
    theirs.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with serving({"babbler": BABBLER}):
        assert not closed, "a handler of somebody else was closed"
