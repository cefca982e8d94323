"""The shapes in which teams already hold their data, each turned into the fields of our own row.

A shape is recognised by the keys that only it has.  The result has the keys of `FIELDS` only; what a shape holds
beside them goes to `metadata`, so that a python grader can see it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from posttrain.tasks import promptfoo
from posttrain.tasks.records import Record, parsed
from posttrain.types import UserError

FIELDS = ("id", "messages", "input", "target", "rejected", "answer", "contexts", "tools", "slices", "metadata")
"""What a row of ours may have.  `input` is a text or a list of messages."""

Fields = dict[str, Any]
RAGAS = {"user_input": "input", "retrieved_contexts": "contexts", "response": "answer", "reference": "target"}
RAGAS_0_1 = {"question": "input", "contexts": "contexts", "answer": "answer", "ground_truth": "target"}
COMPLETION = {"prompt": "input", "completion": "target"}
CHOSEN = {"prompt": "input", "chosen": "target", "rejected": "rejected"}
PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
SHARED = ("id", "slices", "tools", "metadata")


def _renamed(names: Mapping[str, str]) -> Callable[[Record], Fields]:
    def translate(record: Record) -> Fields:
        fields = {ours: record.fields.get(theirs) for theirs, ours in names.items()}
        rest = {key: value for key, value in record.fields.items() if key not in names and key not in SHARED}
        return _with_rest(fields, rest, record)

    return translate


def _with_rest(fields: Fields, rest: Mapping[str, Any], record: Record) -> Fields:
    for key in SHARED:
        if record.fields.get(key) is not None:
            fields[key] = record.fields[key]
    extra = {key: value for key, value in rest.items() if value is not None}
    if extra:
        fields["metadata"] = extra | metadata(fields.get("metadata"), record.place)
    return fields


def _chat(record: Record) -> Fields:
    """OpenAI's rows for fine-tuning.  Whether several tools may be called at once, the answers themselves show."""
    fields = dict(record.fields)
    return _with_rest(fields, {"parallel_tool_calls": fields.pop("parallel_tool_calls", None)}, record)


def _preference(record: Record) -> Fields:
    """OpenAI's preference format: input, preferred_output, non_preferred_output."""
    given = record.fields["input"]
    fields: Fields = {
        "messages": given.get("messages") if isinstance(given, Mapping) else given,
        "target": record.fields["preferred_output"],
        "rejected": record.fields["non_preferred_output"],
    }
    rest = {key: value for key, value in record.fields.items() if key not in (*PREFERENCE, *SHARED)}
    if isinstance(given, Mapping):
        rest |= {key: value for key, value in given.items() if key not in ("messages", "tools")}
        if given.get("tools"):
            fields["tools"] = given["tools"]
    return _with_rest(fields, rest, record)


def _log(record: Record) -> Fields:
    """A logged call of a chat API: its request, and its response as the running system's answer."""
    request, response = record.fields["request"], record.fields["response"]
    try:
        said = response["choices"][0]["message"]
        calls = said.get("tool_calls")
        answer = (
            [{"role": "assistant", "content": said.get("content"), "tool_calls": calls}] if calls else said["content"]
        )
        fields = {
            "messages": request["messages"],
            "tools": request.get("tools"),
            "answer": answer,
            "target": record.fields.get("target"),
        }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            "request or response is not that of a chat completion",
            place=record.place,
            remedy="a request has messages, a response has choices",
        ) from error
    rest = {key: value for key, value in record.fields.items() if key not in ("request", "response", "target", *SHARED)}
    return _with_rest(fields, rest, record)


def _instruction(record: Record) -> Fields:
    """Alpaca: an instruction, often with an input of its own, and an output."""
    asked = [str(record.fields[key]) for key in ("instruction", "input") if record.fields[key]]
    rest = {
        key: value for key, value in record.fields.items() if key not in ("instruction", "input", "output", *SHARED)
    }
    return _with_rest({"input": "\n\n".join(asked), "target": record.fields["output"]}, rest, record)


def _human_eval(record: Record) -> Fields:
    """A prompt that is the head of a function, tests of it, and maybe a body that passes them."""
    fields = record.fields
    body = fields.get("canonical_solution")
    rest = {key: value for key, value in fields.items() if key not in ("canonical_solution", "task_id", *SHARED)}
    target = f"{fields['prompt']}{body}".strip() if body else None
    return _with_rest({"id": fields.get("task_id"), "input": fields["prompt"], "target": target}, rest, record)


def _mbpp(record: Record) -> Fields:
    """What a function does, in words, and asserts of which one is told, for it names the function."""
    fields = record.fields
    tests = listed(fields["test_list"])
    asked = f"{fields.get('text') or fields.get('prompt')}\nFor example: {tests[0] if tests else ''}"
    setup = fields.get("test_setup_code") or "\n".join(listed(fields.get("test_imports")))
    return _with_rest(
        {"id": fields.get("task_id"), "input": asked, "target": fields.get("code")},
        {"tests": tests, "setup": setup or None},
        record,
    )


ASKS_FOR_A_PROGRAM = ("input", "question", "prompt", "problem", "instruction")


def _tested(record: Record) -> Fields:
    """What a program is to do, and tests that it must pass; one that does may be there, too."""
    asked = next(name for name in ASKS_FOR_A_PROGRAM if name in record.fields)
    known = next((name for name in ("target", "solution", "code") if name in record.fields), "")
    rest = {key: value for key, value in record.fields.items() if key not in (asked, known, "tests", *SHARED)}
    tests = record.fields["tests"]
    rest["tests"] = tests if isinstance(tests, list) else listed(tests)
    return _with_rest({"input": record.fields[asked], "target": record.fields.get(known)}, rest, record)


SHAPES: tuple[tuple[str, set[str], Callable[[Record], Fields]], ...] = (
    ("OpenAI preference pairs", PREFERENCE, _preference),
    ("HumanEval", {"prompt", "test", "entry_point"}, _human_eval),
    ("MBPP", {"test_list", "code"}, _mbpp),
    *(("programs and their tests", {name, "tests"}, _tested) for name in ASKS_FOR_A_PROGRAM),
    ("promptfoo tests", {"vars"}, lambda record: promptfoo.row_fields(record.fields, record.place)),
    ("a table of promptfoo tests", {"__expected"}, lambda record: promptfoo.table_fields(record.fields, record.place)),
    ("a table of promptfoo tests", {"__expected1"}, lambda record: promptfoo.table_fields(record.fields, record.place)),
    ("logged chat completions", {"request", "response"}, _log),
    ("instruction, input and output", {"instruction", "input", "output"}, _instruction),
    ("preference pairs", {"prompt", "chosen", "rejected"}, _renamed(CHOSEN)),
    ("prompt and completion", {"prompt", "completion"}, _renamed(COMPLETION)),
    ("ragas columns", {"user_input"}, _renamed(RAGAS)),
    ("ragas columns (before 0.2)", {"question", "ground_truth"}, _renamed(RAGAS_0_1)),
    ("chat rows", {"messages"}, _chat),
    ("input and target", {"input", "target"}, lambda record: dict(record.fields)),
)


def shape_of(record: Record) -> str:
    """The name of the record's shape, or "" when it is a table of columns we do not know."""
    return next((name for name, keys, _ in SHAPES if keys <= record.fields.keys()), "")


def translate(record: Record) -> Fields:
    """The row fields of a record of a known shape; of any other record, its own fields."""
    record.check(record.fields)
    for _, keys, function in SHAPES:
        if keys <= record.fields.keys():
            return function(record)
    return dict(record.fields)


def metadata(value: Any, place: str) -> dict[str, Any]:
    given = parsed(value, "metadata", place) or {}
    if not isinstance(given, Mapping):
        raise UserError("metadata is not an object", place=place, remedy='write {"key": value}')
    return dict(given)


def listed(value: Any) -> list[Any]:
    """A list out of a table's cell: JSON, Python's notation (what pandas writes), or a single text."""
    if value is None:
        return []
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            for parse in (json.loads, ast.literal_eval):
                try:
                    return list(parse(value))
                except (ValueError, SyntaxError, RecursionError):
                    continue
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]
