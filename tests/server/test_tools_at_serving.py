"""What a candidate was taught with is what it is served with: tools and passages, to the token."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
from live_server import serving

from posttrain import candidates, tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.toy import ToyPolicy
from posttrain.losses import cross_entropy
from posttrain.optimisers import Adam
from posttrain.rollouts import taught
from posttrain.types import Message, Output, Prompt, Row, Task

FIND = {"type": "function", "function": {"name": "find", "description": "Looks up an order.",
                                         "parameters": {"type": "object", "properties": {"order": {}}}}}
CALL = {"type": "object", "properties": {
    "name": {"const": "find"}, "arguments": {"type": "object", "required": ["order"], "additionalProperties": False,
                                             "properties": {"order": {"enum": ["apple", "pear"]}}}},
    "required": ["name", "arguments"], "additionalProperties": False}
HEAR = {"type": "function", "function": {"name": "hear"}}


class Watched(ToyPolicy):
    """Remembers the prompts it was given."""

    prompts: list[Prompt]

    async def sample(self, prompts: Any, **settings: Any) -> Any:
        self.prompts = [*getattr(self, "prompts", []), *prompts]
        return await super().sample(prompts, **settings)


def task_with_tools(folder: Path, tools: list[Any], per_row: dict[int, Any] | None = None) -> Task:
    folder.mkdir()
    (folder / "tools.json").write_text(json.dumps(tools))
    (folder / "schema.json").write_text(json.dumps(CALL))
    (folder / "task.toml").write_text('instructions = "Help."\ntools = "tools.json"\n[output]\nschema = "schema.json"\n')
    rows = [{"input": f"where is {word}", "target": {"name": "find", "arguments": {"order": word}}}
            | ({"tools": per_row[number]} if per_row and number in per_row else {})
            for number, word in enumerate(("apple", "pear"))]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks.load(folder)


def asked_over_http(candidate: PolicyCandidate, **settings: Any) -> Any:
    with serving({"it": candidate}) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        messages: Any = [{"role": "user", "content": "where is apple"}]
        return client.chat.completions.create(model="it", messages=messages, **settings)


def test_a_taught_candidate_is_served_with_its_tools_and_calls_them(tmp_path: Path) -> None:
    task = task_with_tools(tmp_path / "task", [FIND])
    policy = Watched.open_for(task)
    start = PolicyCandidate.of("toy", Watched("toy", policy.words, policy.tables, trainable=True), task)
    data = [taught(start, row) for row in task.rows("train")]

    async def learn() -> None:
        for _ in range(60):
            await start.policy.forward_backward(data, cross_entropy, normaliser=len(data))
            await start.policy.optim_step(Adam(0.03))
        await start.save(tmp_path / "saved")

    asyncio.run(learn())
    loaded = candidates.load(tmp_path / "saved", lambda *_: start.policy)
    assert isinstance(loaded, PolicyCandidate) and loaded.tools == (FIND,)
    called = asked_over_http(loaded).choices[0].message.tool_calls[0].function
    assert (called.name, json.loads(called.arguments)) == ("find", {"order": "apple"})
    trained = data[0].tokens[:len(data[0].tokens) - len(data[0].trained)]
    assert start.policy.prompts[-1] == trained  # type: ignore[attr-defined]


def test_tools_of_the_request_or_the_row_stand_in_for_the_candidates(tmp_path: Path) -> None:
    task = task_with_tools(tmp_path / "task", [FIND])
    policy = Watched.open_for(task)
    candidate = PolicyCandidate.of("toy", policy, task)
    asked_over_http(candidate, tools=[HEAR])
    shown = policy.renderer.decode(policy.prompts[-1])  # type: ignore[arg-type]
    assert '"hear"' in shown and '"find"' not in shown
    row = Row("r", (Message("user", "where is apple"),))
    assert '"find"' in policy.renderer.decode(candidate.prompt(row))  # type: ignore[arg-type]
    assert candidate.prompt(replace(row, tools=(HEAR,))) == policy.prompts[-1]


def test_tools_that_differ_from_row_to_row_are_nobodys(tmp_path: Path) -> None:
    task = task_with_tools(tmp_path / "task", [FIND], {1: [HEAR]})
    assert [row.tools for row in task.rows("train")] == [(FIND,), (HEAR,)]
    assert PolicyCandidate.of("toy", ToyPolicy.open(), task).tools == ()


def test_passages_of_a_request_are_shown_as_those_of_a_row() -> None:
    policy = Watched.open()
    candidate = PolicyCandidate("toy", "prompt", policy, "Help.", Output(max_tokens=4))
    row = Row("r", (Message("user", "where is apple"),), contexts=("Apples are red.", "Pears are green."))
    assert candidate.messages(row)[-1].content == "Apples are red.\n\nPears are green.\n\n---\nwhere is apple"
    asked_over_http(candidate, extra_body={"contexts": list(row.contexts)})
    assert policy.prompts[-1] == candidate.prompt(row)
