"""A real (tiny) model behind the chat dialect: constraint, seeds, streams, votes and hanging up reach the engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import serving

from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import Message, Output, Row

LABELS = Output(labels=("billing", "shipping", "repair"), max_tokens=16)


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def candidates(engine: TorchEngine) -> dict[str, Any]:
    policy: Any = engine.base()
    return {"labels": PolicyCandidate("labels", "prompt", policy, "Which queue?", LABELS),
            "text": PolicyCandidate("text", "prompt", policy, "", Output(max_tokens=24)),
            "votes": PolicyCandidate("votes", "prompt", policy, "Which queue?", LABELS, votes=3)}


@pytest.fixture(scope="module")
def client(candidates: dict[str, Any]) -> Iterator[openai.OpenAI]:
    with serving(candidates) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none")


def ask(client: openai.OpenAI, model: str, text: str = "The printer is down.", **settings: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **settings)


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


@pytest.mark.parametrize("model", ["labels", "text", "votes"])
def test_the_served_answer_is_the_evaluated_one(client: openai.OpenAI, candidates: dict[str, Any], model: str) -> None:
    row = Row("r", (Message("user", "The printer is down."),))
    (rollout,), = asyncio.run(candidates[model].attempt([row]))
    reply = ask(client, model)
    assert reply.choices[0].message.content == rollout.answer
    assert reply.choices[0].finish_reason == rollout.completion.stop_reason
    assert reply.usage.prompt_tokens == rollout.completion.prompt_tokens > 0
    assert reply.usage.completion_tokens == rollout.completion.completion_tokens > 0
    assert text_of(ask(client, model, stream=True)) == rollout.answer


def test_seeds_decide_what_is_sampled(client: openai.OpenAI) -> None:
    answers = [ask(client, "text", temperature=1, seed=seed, max_tokens=8).choices[0].message.content
               for seed in (1, 2, 1)]
    assert answers[0] == answers[2] != answers[1]
    assert text_of(ask(client, "text", temperature=1, seed=1, max_tokens=8, stream=True)) == answers[0]
    choices = ask(client, "text", temperature=1, seed=1, max_tokens=8, n=3).choices
    assert len({choice.message.content for choice in choices}) == 3


def test_the_tasks_form_holds_under_any_sampling_unless_another_is_asked_for(client: openai.OpenAI) -> None:
    drawn = {ask(client, "labels", temperature=2, seed=seed).choices[0].message.content for seed in range(4)}
    assert drawn <= set(LABELS.labels)
    schema = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"],
              "additionalProperties": False}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "kind", "schema": schema}}
    reply = ask(client, "labels", response_format=wanted, max_tokens=40)
    assert json.loads(reply.choices[0].message.content)["kind"] in ("a", "b")


def test_a_vote_is_not_quietly_turned_into_a_sample(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only as it was evaluated") as raised:
        ask(client, "votes", temperature=0.5)
    assert raised.value.param == "temperature"


def test_hanging_up_frees_the_engine(client: openai.OpenAI, engine: TorchEngine) -> None:
    def seconds_until_idle() -> float:
        began = time.monotonic()
        while engine.sampler.busy:
            time.sleep(0.005)
        return time.monotonic() - began

    began = time.monotonic()
    ask(client, "text", max_tokens=400, temperature=1, seed=7, n=8)
    whole = time.monotonic() - began
    stream = ask(client, "text", max_tokens=400, temperature=1, seed=7, n=8, stream=True)
    next(iter(stream))
    stream.close()
    assert seconds_until_idle() < whole / 2
    assert ask(client, "labels").choices
