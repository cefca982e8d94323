"""The chat endpoint as a policy, over real HTTP: against our own server, and against one that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from babbler import Babbler
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from live_server import running, serving

from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines._chat_http import Patience
from posttrain.engines.chat_api import ChatApiPolicy
from posttrain.engines.torch.engine import TorchEngine
from posttrain.optimisers import Adam
from posttrain.types import Completion, Message, Output, RolloutError, Row, Sampling, UserError

HELLO = (Message("user", "hello to you all"),)
QUICK = Patience(timeout_seconds=2.0, attempts=3, pause_seconds=0.01)


def policy_at(url: str, name: str = "m", patience: Patience = QUICK, **settings: Any) -> ChatApiPolicy:
    return ChatApiPolicy.open(f"chat:{url}/v1#{name}", patience=patience, **settings)


def ask(policy: ChatApiPolicy, n: int = 1, prompt: Any = HELLO, **settings: Any) -> list[Completion]:
    async def once() -> list[Completion]:
        (completions,) = await policy.sample([prompt], n=n, sampling=Sampling(**settings))
        await policy.close()
        return completions

    return asyncio.run(once())


# --- against our own server --------------------------------------------------------------------------------

BABBLER = Babbler(output=Output(max_tokens=16))
SLOW = Babbler(pause_seconds=0.05)


@pytest.fixture(scope="module")
def url(tiny_model_folder: Path) -> Iterator[str]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    tiny = PolicyCandidate("base", "prompt", engine.base(), "Answer.", Output(max_tokens=12))  # type: ignore[arg-type]
    with serving({"m": BABBLER, "slow": SLOW, "tiny": tiny, "failing": Babbler(error="policy: broken")}) as address:
        yield address
    engine.close()


def test_an_answer_comes_back_with_its_tokens_counted(url: str) -> None:
    (answer,) = ask(policy_at(url))
    assert (answer.text, answer.stop_reason) == ("hello to you all", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.prompt) == (4, 4, HELLO)
    (cut,) = ask(policy_at(url), max_tokens=2)
    assert (cut.text, cut.stop_reason) == ("hello to", "length")


def test_sampling_reaches_the_endpoint(url: str) -> None:
    answers = ask(policy_at(url), n=3, temperature=0.7, seed=4, max_tokens=5, top_p=0.9, stop=("zzz",))
    sampling = BABBLER.samplings[-1]
    assert sampling is not None and (sampling.temperature, sampling.seed, sampling.max_tokens, sampling.top_p,
                                     sampling.stop) == (0.7, 4, 5, 0.9, ("zzz",))
    assert len({answer.text for answer in answers}) == 3
    assert ask(policy_at(url), n=3, temperature=0.7, seed=4, max_tokens=5, top_p=0.9, stop=("zzz",)) == answers
    with pytest.raises(UserError, match="top_k"):
        ask(policy_at(url), top_k=5)


def test_a_schema_and_labels_hold_a_real_model_to_their_form(url: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
              "required": ["n"], "additionalProperties": False}
    policy = policy_at(url, "tiny", Patience(timeout_seconds=20))
    (record,) = ask(policy, max_tokens=48, output=Output(schema=schema))
    assert json.loads(record.text)["n"] in range(10)
    (label,) = ask(policy, max_tokens=4, output=Output(labels=("yes", "no")))
    assert label.text in ("yes", "no") and not policy.notes, "the object around a label has room of its own"


def test_text_streams_in_and_adds_up(url: str) -> None:
    heard: list[tuple[int, int, str, float]] = []

    async def stream(output: Output | None = None) -> list[list[Completion]]:
        policy, began = policy_at(url, "slow"), time.monotonic()
        return await policy.sample([HELLO, HELLO], n=2, sampling=Sampling(output=output),
                                   on_text=lambda i, j, text: heard.append((i, j, text, time.monotonic() - began)))

    answers = asyncio.run(stream())
    for i in range(2):
        for j in range(2):
            assert "".join(text for a, b, text, _ in heard if (a, b) == (i, j)) == answers[i][j].text
    assert heard[-1][3] - heard[0][3] > 0.1 and len(heard) > 8
    assert answers[0][0].prompt_tokens == 4 and sum(answer.completion_tokens for answer in answers[0]) == 8
    heard.clear()
    answers = asyncio.run(stream(Output(labels=("yes", "no"))))
    assert [text for *_, text, _ in heard] == [answer.text for group in answers for answer in group]


def test_no_more_requests_are_under_way_than_allowed(url: str) -> None:
    SLOW.most_at_once = 0

    async def many() -> None:
        await policy_at(url, "slow", concurrency=3).sample([HELLO] * 9, sampling=Sampling())

    asyncio.run(many())
    assert SLOW.most_at_once == 3


def test_a_candidate_keeps_its_other_rollouts_when_one_request_fails(url: str) -> None:
    candidate = PolicyCandidate("base", "prompt", policy_at(url), "", Output(max_tokens=9))
    rows = [Row("a", (Message("user", "fine"),)), Row("b", ())]  # no message at all: the endpoint refuses it
    rows[1] = Row("b", (Message("assistant", "not a question"),))
    (good,), (bad,) = asyncio.run(candidate.attempt(rows))
    assert good.answer == "fine" and not good.error
    assert bad.error.startswith("policy: ") and "last message" in bad.error and bad.completion is None


def test_an_unknown_model_and_an_unreachable_endpoint_are_the_users_to_solve(url: str) -> None:
    with pytest.raises(UserError, match="no such endpoint or model"):
        ask(policy_at(url, "gpt-9"))
    with pytest.raises(UserError, match="no such endpoint or model"):
        ask(ChatApiPolicy.open(f"chat:{url}/v2#m"))
    with pytest.raises(UserError, match="cannot reach"):
        ask(policy_at("http://127.0.0.1:1"))


@pytest.mark.parametrize("spec", ["chat:http://here/v1", "http://here/v1#m", "chat:here#m", "chat:#m", ""])
def test_a_malformed_name_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="not a chat endpoint"):
        ChatApiPolicy.open(spec)


def test_it_can_only_be_prompted(url: str) -> None:
    policy = policy_at(url)
    verbs: list[Callable[[], Any]] = [
        lambda: policy.fork("x"), lambda: asyncio.run(policy.logprobs([])),
        lambda: asyncio.run(policy.forward_backward([], lambda *_: (0, {}))),
        lambda: asyncio.run(policy.optim_step(Adam(1e-3))), lambda: asyncio.run(policy.save(Path("x")))]
    for verb in verbs:
        with pytest.raises(UserError, match="can only be prompted"):
            verb()
    assert policy.frozen() is policy and policy.trainable is False
    assert policy.drop() is None  # type: ignore[func-returns-value]


# --- replies are kept --------------------------------------------------------------------------------------


def test_a_request_is_paid_for_once(url: str, tmp_path: Path) -> None:
    def resumed() -> ChatApiPolicy:
        policy = policy_at(url)
        policy.replies_path = tmp_path / "run/replies.jsonl"
        return policy

    before = len(BABBLER.samplings)
    answers = ask(resumed(), n=2, temperature=1.0)
    assert ask(resumed(), n=2, temperature=1.0) == answers
    assert len(BABBLER.samplings) == before + 1
    for other in ({"seed": 1}, {"temperature": 0.5}, {"max_tokens": 3}):
        ask(resumed(), **{"n": 2, "temperature": 1.0, **other})
    ask(resumed(), n=3, temperature=1.0)
    assert len(BABBLER.samplings) == before + 5
    records = [json.loads(line) for line in (tmp_path / "run/replies.jsonl").read_text().splitlines()]
    assert len(records) == 5 and records[0]["request"]["messages"][0]["content"] == "hello to you all"
    assert records[0]["reply"]["texts"] == [answer.text for answer in answers]
    assert ask(policy_at(url), n=2, temperature=1.0) == answers and len(BABBLER.samplings) == before + 6


def test_a_kill_in_the_middle_of_a_line_loses_only_that_line(url: str, tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    policy = policy_at(url)
    policy.replies_path = path
    ask(policy)
    ask(policy, seed=1)
    path.write_bytes(path.read_bytes()[:-20])
    before = len(BABBLER.samplings)
    for _ in range(2):
        policy = policy_at(url)
        policy.replies_path = path
        ask(policy)
        ask(policy, seed=1)
    assert len(BABBLER.samplings) == before + 1


# --- against an endpoint that misbehaves -------------------------------------------------------------------


class Misbehaving:
    """Answers with what is in `script`, one a request; an entry is a response or a function of the body."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.app = FastAPI()

        @self.app.post("/v1/chat/completions", response_model=None)
        async def answer(request: Request) -> Response:
            self.bodies.append(await request.json())
            self.headers.append(request.headers)
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(step, float):
                await asyncio.sleep(step)
                return reply()
            return step(self.bodies[-1]) if callable(step) and not isinstance(step, Response) else step

    def says(self, *script: Any) -> None:
        self.script, self.bodies, self.headers = list(script), [], []


def reply(*texts: str, usage: bool = True, finish_reason: str = "stop") -> JSONResponse:
    choices = [{"index": i, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
               for i, text in enumerate(texts or ("fine",))]
    counts = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}} if usage else {}
    return JSONResponse({"choices": choices, **counts})


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **details: Any) -> JSONResponse:
    return JSONResponse({"error": {"message": message, **details}}, status, headers=headers)


def stream(*lines: str) -> Callable[[Any], StreamingResponse]:
    return lambda _: StreamingResponse((f"{line}\n\n" for line in lines), media_type="text/event-stream")


CHUNK = 'data: {"choices": [{"index": 0, "delta": {"content": "fi"}}]}'


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[Misbehaving, str]]:
    misbehaving = Misbehaving()
    with running(misbehaving.app) as address:
        yield misbehaving, address


@pytest.mark.parametrize("failure", [error(429), error(500), error(503), Response("<html>busy</html>", 502)])
def test_what_passes_by_itself_is_tried_again(endpoint: tuple[Misbehaving, str], failure: Response) -> None:
    server, url = endpoint
    server.says(failure, failure, reply("fine"))
    assert ask(policy_at(url))[0].text == "fine"
    assert len(server.bodies) == 3
    server.says(failure)
    with pytest.raises(RolloutError, match=f"policy: .*{failure.status_code}.*after 3 attempts"):
        ask(policy_at(url))
    assert len(server.bodies) == 3


def test_the_wait_that_is_asked_for_is_kept_but_not_without_end(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(error(429, headers={"Retry-After": "0.3"}), reply())
    began = time.monotonic()
    ask(policy_at(url))
    assert 0.3 <= time.monotonic() - began < 1.5
    server.says(error(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RolloutError, match="3600 seconds"):
        ask(policy_at(url))
    assert len(server.bodies) == 1


def test_what_does_not_pass_by_itself_is_asked_once(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    for status, remedy in ((401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "chat:URL#NAME")):
        server.says(error(status, "go away"))
        with pytest.raises(UserError, match="go away") as raised:
            ask(policy_at(url))
        assert remedy in raised.value.remedy and len(server.bodies) == 1
    server.says(error(429, "pay first", code="insufficient_quota"))
    with pytest.raises(UserError, match="credit"):
        ask(policy_at(url))
    server.says(error(400, "too long", param="messages"))
    with pytest.raises(RolloutError, match="too long"):
        ask(policy_at(url), output=Output(schema={"type": "object"}))
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("answer", "complaint"), [
    (Response("hello", 200), "not JSON"),
    (Response("[1]", 200), "not a JSON object"),
    (JSONResponse({"id": "x"}), "no list of choices"),
    (JSONResponse({"choices": []}), "no choices"),
    (JSONResponse({"choices": [{"index": 0}]}), "no message"),
    (reply("half", finish_reason="content_filter"), "content filter"),
])
def test_an_answer_that_is_none_is_a_failed_rollout(endpoint: tuple[Misbehaving, str], answer: Response,
                                                    complaint: str) -> None:
    server, url = endpoint
    server.says(answer)
    with pytest.raises(RolloutError, match=complaint):
        ask(policy_at(url))
    assert len(server.bodies) == 1


def test_an_endpoint_that_hangs_is_left_after_the_time_limit(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(5.0)
    began = time.monotonic()
    with pytest.raises(RolloutError, match=r"no answer within 0\.2 seconds"):
        ask(policy_at(url, patience=Patience(timeout_seconds=0.2)))
    assert time.monotonic() - began < 2 and len(server.bodies) == 1


@pytest.mark.parametrize(("lines", "complaint"), [
    ([CHUNK], "ended before its answer"),
    ([CHUNK, "data: {"], "not JSON"),
    ([CHUNK, 'data: {"error": {"message": "out of memory"}}'], "out of memory"),
])
def test_a_stream_cut_short_is_a_failed_rollout(endpoint: tuple[Misbehaving, str], lines: list[str],
                                                complaint: str) -> None:
    server, url = endpoint
    server.says(stream(*lines))
    heard: list[str] = []
    with pytest.raises(RolloutError, match=complaint):
        asyncio.run(policy_at(url).sample([HELLO], sampling=Sampling(), on_text=lambda *new: heard.append(new[2])))
    assert heard == ["fi"] and len(server.bodies) == 1


def refuses(**fields: str) -> Callable[[dict[str, Any]], Response]:
    """Refuses the first of `fields` that a body holds, with that message."""

    def answer(body: dict[str, Any]) -> Response:
        refused = next((name for name in fields if name in body), None)
        return reply() if refused is None else error(400, fields[refused])

    return answer


def test_a_field_that_can_be_spared_is_left_out_once_and_for_all(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(refuses(response_format="bad request", seed="Extra inputs are not permitted: seed"))
    policy = policy_at(url)
    for _ in range(2):
        assert ask(policy, output=Output(labels=("fine", "bad")))[0].text == "fine"
    assert len(server.bodies) == 4
    assert "seed" not in server.bodies[-1] and "response_format" not in server.bodies[-1]
    assert len(policy.notes) == 2 and "no output schema" in policy.notes[0]


def test_a_refusal_that_sparing_does_not_cure_spares_nothing(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    policy = policy_at(url)
    server.says(error(400, "prompt too long"))
    with pytest.raises(RolloutError, match="prompt too long"):
        ask(policy, output=Output(labels=("fine",)))
    server.says(reply())
    ask(policy, output=Output(labels=("fine",)))
    assert "response_format" in server.bodies[-1] and not policy.notes


def test_the_newer_name_of_the_limit_and_a_fixed_temperature_are_learnt(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(refuses(max_tokens="Unsupported parameter: use 'max_completion_tokens' instead.",
                        temperature="Unsupported value: 'temperature' does not support 0 with this model."))
    policy = policy_at(url)
    assert ask(policy, max_tokens=9)[0].text == "fine"
    assert server.bodies[-1]["max_completion_tokens"] == 9 and "temperature" not in server.bodies[-1]
    assert policy.notes == ["it takes no temperature 0: its answers are sampled, not greedy"]
    with pytest.raises(UserError, match="refuses temperature"):
        ask(policy_at(url), temperature=0.7)


def test_an_endpoint_that_gives_one_choice_at_a_time_is_asked_until_there_are_enough(
        endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(lambda body: reply(f"seed {body['seed']}"))
    assert [answer.text for answer in ask(policy_at(url), n=3)] == ["seed 0", "seed 1", "seed 2"]


def test_usage_is_shared_out_among_the_choices(endpoint: tuple[Misbehaving, str]) -> None:
    server, url = endpoint
    server.says(reply("a", "b"))
    assert [(answer.prompt_tokens, answer.completion_tokens) for answer in ask(policy_at(url), n=2)] == [(7, 2), (7, 1)]
    server.says(reply(usage=False))
    policy = policy_at(url)
    assert ask(policy)[0].completion_tokens == 0 and "no token counts" in policy.notes[0]


def test_the_key_goes_along_when_there_is_one(endpoint: tuple[Misbehaving, str],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    server, url = endpoint
    server.says(reply())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    ask(policy_at(url))
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(policy_at(url))
    assert [headers.get("authorization") for headers in server.headers] == ["Bearer sk-1", None]
