"""The checks that a row brings along, in promptfoo's words: row.metadata["assert"] is a list of
`{type, value, threshold?, metric?}`.  The value is the share of checks met, the answer passes when all are met.

Only the deterministic types of https://www.promptfoo.dev/docs/configuration/expected-outputs/ are known;
a check that needs a model or runs code is refused when the row is read (`check_assertions`), never skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rapidfuzz.distance import Levenshtein

from posttrain.graders.json import read_value, schema_problem, validator
from posttrain.types import RolloutError, Row, Score


def as_written(value: Any) -> str:
    """A value as promptfoo writes it, which is as in JSON: YAML's yes is `true`, 14.0 is 14.  A date stays as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    in_json = value is None or isinstance(value, (bool, int, float, list, dict))
    return json.dumps(value, ensure_ascii=False, default=str) if in_json else str(value)


def _is_json(answer: str, value: Any) -> bool:
    try:
        return _allowed(read_value(answer), value)
    except ValueError:
        return False


def _contains_json(answer: str, value: Any) -> bool:
    """Whether an object or list anywhere in the answer is what is wanted."""
    for found in re.finditer(r"[\[{]", answer):
        try:
            inside, _ = json.JSONDecoder().raw_decode(answer, found.start())
        except (ValueError, RecursionError):
            continue
        if _allowed(inside, value):
            return True
    return False


def _allowed(inside: Any, value: Any) -> bool:
    return value is None or bool(validator(_schema(value)).is_valid(inside))


def _schema(value: Any) -> Any:
    """The JSON schema that is meant: it may be written as a text.  Raises ValueError for a text that is no JSON."""
    return json.loads(value) if isinstance(value, str) else value


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "equals": lambda answer, value: answer.strip() in (as_written(value).strip(), str(value).strip()),
    "contains": lambda answer, value: as_written(value) in answer,
    "icontains": lambda answer, value: as_written(value).casefold() in answer.casefold(),
    "contains-any": lambda answer, value: any(as_written(item) in answer for item in _items(value)),
    "contains-all": lambda answer, value: all(as_written(item) in answer for item in _items(value)),
    "icontains-any": lambda answer, value: any(
        as_written(item).casefold() in answer.casefold() for item in _items(value)
    ),
    "icontains-all": lambda answer, value: all(
        as_written(item).casefold() in answer.casefold() for item in _items(value)
    ),
    "starts-with": lambda answer, value: answer.startswith(as_written(value)),
    "regex": lambda answer, value: re.search(as_written(value), answer) is not None,
    "is-json": _is_json,
    "contains-json": _contains_json,
}
"""Each check by promptfoo's name.  `not-NAME` is its opposite; `levenshtein` is apart, for its threshold."""


def check_assertions(assertions: Any) -> str:
    """What is wrong with these checks, or "" when `Grader` can do them all."""
    if not assertions:
        return "no assertion"
    if not isinstance(assertions, (list, tuple)) or not all(isinstance(one, Mapping) for one in assertions):
        return "assert is not a list of {type, value}"
    for assertion in assertions:
        kind = str(assertion.get("type", ""))
        if kind.removeprefix("not-") not in (*CHECKS, "levenshtein"):
            return f"assertion type {kind!r} is not known (known: {', '.join(CHECKS)}, levenshtein, not-...)"
        extra = assertion.keys() - {"type", "value", "threshold", "metric"}
        if assertion.get("weight") == 1:
            extra -= {"weight"}  # all count alike
        if extra or ("threshold" in assertion and not kind.endswith("levenshtein")):
            return f"assertion {kind!r} has options that are not known: {', '.join(sorted(extra)) or 'threshold'}"
        if problem := _value_problem(kind, assertion):
            return problem
    return ""


def _value_problem(kind: str, assertion: Mapping[str, Any]) -> str:
    """What is wrong with the value to check against, or ""."""
    value, threshold = assertion.get("value"), assertion.get("threshold", 5)
    if kind.endswith("-json"):
        return _schema_problem(kind, value)
    allowed = (str, list) if kind.endswith(("-any", "-all")) else (str, int, float)
    if not isinstance(value, allowed) or (not value and value != 0):
        return f"assertion {kind!r} has the value {value!r}"
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        return f"assertion {kind!r} has the threshold {threshold!r}"
    if kind.endswith("regex"):
        try:
            re.compile(as_written(value))
        except re.error as error:
            return f"{value!r} is not a regular expression: {error}"
    return ""


def _schema_problem(kind: str, value: Any) -> str:
    """What is wrong with the schema of a check for JSON, which it need not have, or ""."""
    try:
        schema = {} if value is None else _schema(value)
    except ValueError:
        schema = value
    if not isinstance(schema, Mapping):
        return f"assertion {kind!r} has the value {value!r}, which is no JSON schema"
    problem = schema_problem(schema)
    return f"the schema of assertion {kind!r} is none: {problem}" if problem else ""


class Grader:
    """No options.  Parts: one per check, named after its metric, else its type, and its number."""

    async def grade(self, row: Row, answer: str) -> Score:
        assertions = row.metadata.get("assert", ())
        problem = check_assertions(assertions)
        if problem:
            raise RolloutError("grader", f"row {row.id}: {problem}")
        if not answer.strip():
            return Score(0.0, False, explanation="no answer")  # else an empty answer would meet every not-...
        parts = {
            f"{assertion.get('metric') or assertion['type']} {number}": float(_met(assertion, answer))
            for number, assertion in enumerate(assertions, 1)
        }
        value = sum(parts.values()) / len(parts)
        return Score(value, value == 1.0, parts)


def _items(value: Any) -> list[Any]:
    """promptfoo takes a list, or a text of items with commas between them."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else list(value)


def _met(assertion: Mapping[str, Any], answer: str) -> bool:
    kind, value = str(assertion["type"]), assertion.get("value")
    name = kind.removeprefix("not-")
    if name == "levenshtein":
        met = Levenshtein.distance(answer, as_written(value)) <= assertion.get("threshold", 5)
    else:
        met = CHECKS[name](answer, value)
    return met != kind.startswith("not-")
