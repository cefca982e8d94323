"""Tools in words: what is told to the model, and how calls and results come back as text."""

from __future__ import annotations

import json

import pytest
from transformers import PreTrainedTokenizerFast

from posttrain.renderers.chat_template import ChatTemplateRenderer
from posttrain.renderers.messages import MessageRenderer
from posttrain.renderers.tool_text import plain
from posttrain.types import Message, Renderer, UserError

LOOKUP = {"name": "lookup", "description": "Find an order.", "parameters": {"type": "object"}}
CALL = {"id": "1", "type": "function", "function": {"name": "lookup", "arguments": '{"id": "A-1"}'}}


def test_without_tools_nothing_changes() -> None:
    messages = (Message("system", "s"), Message("user", "u"), Message("user", "again"), Message("assistant", "a", 0.5))
    assert plain(messages) == messages


@pytest.mark.parametrize("tool", [LOOKUP, {"type": "function", "function": LOOKUP}])
def test_tools_are_told_in_the_system_message(tool: dict[str, object]) -> None:
    told = plain([Message("system", "Be brief."), Message("user", "u")], [tool])
    assert [message.role for message in told] == ["system", "user"]
    lines = told[0].content.splitlines()
    assert lines[0] == "Be brief." and json.loads(lines[-2]) == LOOKUP
    assert plain([Message("user", "u")], [tool])[0].role == "system"


def test_a_call_is_one_json_object_and_its_results_are_a_user_turn() -> None:
    told = plain([Message("user", "u"), Message("assistant", "", 0.5, tool_calls=(CALL, {**LOOKUP, "arguments": {}})),
                  Message("tool", "found", tool_call_id="1"), Message("tool", "not found", tool_call_id="2")])
    assert [message.role for message in told] == ["user", "assistant", "user"]
    calls = [json.loads(line) for line in told[1].content.splitlines()]
    assert calls == [{"name": "lookup", "arguments": {"id": "A-1"}}, {"name": "lookup", "arguments": {}}]
    assert told[1].weight == 0.5
    assert told[2].content.index("found") < told[2].content.index("not found")


def test_calls_are_trained_and_prompts_stay_prefixes(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    render = ChatTemplateRenderer(tiny_tokenizer)
    messages = [Message("user", "u"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "found"),
                Message("assistant", "yes")]
    datum = render.datum(messages, [LOOKUP])
    for length in (1, 3):
        prompt = render.prompt(messages[:length], [LOOKUP])
        assert datum.tokens[:len(prompt)] == prompt
    trained = render.decode([datum.tokens[i] for i in datum.trained])
    assert trained == '{"name": "lookup", "arguments": {"id": "A-1"}}yes'


def test_endpoints_get_the_messages_and_are_not_trained() -> None:
    render = MessageRenderer()
    messages = (Message("system", "s"), Message("user", "u" * 40))
    assert render.prompt(messages) == messages
    assert render.count("u" * 40) == 10
    assert isinstance(render, Renderer)
    with pytest.raises(UserError, match="an endpoint cannot be trained"):
        render.datum(messages)
