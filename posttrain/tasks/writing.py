"""A task's folder as text: TOML, rows, a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.types import Message, Row


def toml(table: Mapping[str, Any]) -> str:
    """TOML of a table of texts, numbers, lists and tables; keys without a value are left out.  TOML has no null."""
    return "\n".join(_lines(table, "")).strip() + "\n"


def _lines(table: Mapping[str, Any], path: str) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items() if value is not None]
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{path}.{_key(key)}" if path else _key(key)
            inside = _lines(value, name)
            lines += (
                ["", f"[{name}]", *inside]
                if any(not isinstance(v, Mapping) for v in value.values()) or not value
                else inside
            )
    return lines


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _block(value) if "\n" in value else _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        items = [_value(item) for item in value]
        line = f"[{', '.join(items)}]"
        return line if len(line) <= 100 else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    return json.dumps(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _block(text: str) -> str:
    """A text of several lines, as such, escaped as in a JSON string; quotes stay readable unless they could end it."""
    lines = (
        _text(line)[1:-1]
        if '""' in line or line.endswith('"')
        else '"'.join(_text(part)[1:-1] for part in line.split('"'))
        for line in text.split("\n")
    )
    return '"""\n' + "\n".join(lines) + '"""'


def row_line(row: Row, *, with_id: bool) -> str:
    """A row as a line of JSON: `{"input", "target"}` for a single question, else with its messages."""
    fields: dict[str, Any] = {"id": row.id} if with_id else {}
    if row.messages == (Message("user", row.text),):
        fields["input"] = row.text
    else:
        fields["messages"] = [_message(message) for message in row.messages]
    fields["target"] = row.target
    if row.answer is not None:
        fields["answer"] = row.answer
    optional = {
        "rejected": row.rejected,
        "contexts": row.contexts,
        "tools": row.tools,
        "slices": row.slices,
        "metadata": row.metadata,
    }
    fields |= {key: value for key, value in optional.items() if value}
    return json.dumps(fields, ensure_ascii=False)


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.weight == 0:
        fields["weight"] = 0
    if message.tool_calls:
        fields["tool_calls"] = message.tool_calls
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def card(name: str, source: str, splits: Mapping[str, Sequence[Row]], notes: Sequence[str]) -> str:
    """README.md: what the task is, where it is from, and what only people can say."""
    sizes = "\n".join(f"| {split} | {len(rows):,} |" for split, rows in splits.items())
    guesses = "\n".join(f"- {note}" for note in notes)
    return f"""# {name}

Made by `posttrain init` from `{source}`. What it asks and how answers are judged is in `task.toml`.

| split | rows |
|---|---|
{sizes}

## What was found and guessed

{guesses}

## To be filled in by a person

- Licence of the data: not stated.
- Who wrote the inputs, who labelled them, and how well two labellers agree (`ceiling` in `task.toml`): not stated.
"""
