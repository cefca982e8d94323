"""The answer is a JSON object; each field is right or wrong, and the record is right when every field is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from posttrain.types import RolloutError, Row, Score

FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


def read_value(text: str) -> Any:
    """The JSON value that `text` is, a Markdown fence around it forgiven.  Raises ValueError when it is none.

    A key given twice, NaN and Infinity are not JSON.
    """
    fenced = FENCE.fullmatch(text)
    try:
        return json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_object(text: str) -> dict[str, Any] | None:
    """As `read_value`, but None for anything that is no object."""
    try:
        value = read_value(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def schema_problem(schema: Mapping[str, Any]) -> str:
    """What is wrong with a JSON schema, or "".  Its `$ref`s may lead to other places in it only."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return str(error.message)
    except RecursionError:
        return "nested too deeply"
    root = DRAFT202012.create_resource(schema)
    left, seen = [(root, Registry().resolver_with_root(root))], set()
    while left:
        part, resolver = left.pop()
        if id(part.contents) in seen or not isinstance(part.contents, Mapping):
            continue
        seen.add(id(part.contents))
        for reference in [part.contents[key] for key in ("$ref", "$dynamicRef") if key in part.contents]:
            try:
                found = resolver.lookup(reference)
            except (Unresolvable, ValueError):  # the latter: a word where a list has numbers
                return f"$ref {reference!r} leads to nothing in the schema"
            left.append((DRAFT202012.create_resource(found.contents), found.resolver))
        left += [(one, resolver.in_subresource(one)) for one in part.subresources()]
    return ""


def validator(schema: Mapping[str, Any]) -> Any:
    """What checks records against the schema.  Its registry is empty: a `$ref` never touches the network."""
    return jsonschema.Draft202012Validator(schema, registry=Registry())


class Grader:
    """Option: `ignore_case`, for the texts in fields.  The schema is the task's `[output] schema`, if it has one.

    Parts: one per field of the target, and `valid`: an object that the schema allows.  The value is the share
    of fields right, fields invented by the answer counting as wrong.
    """

    def __init__(self, *, ignore_case: bool = False, schema: Mapping[str, Any] | None = None) -> None:
        self.ignore_case = ignore_case
        self.validator = None if schema is None else validator(schema)

    async def grade(self, row: Row, answer: str) -> Score:
        target = read_object(row.target) if isinstance(row.target, str) else row.target
        if not target:
            raise RolloutError("grader", f"the target of row {row.id} is not a record")
        given = read_object(answer)
        try:
            return self._score(target, given)
        except RecursionError:  # nested beyond all sense
            return self._score(target, None)

    def _score(self, target: Mapping[str, Any], given: Mapping[str, Any] | None) -> Score:
        valid = given is not None and (self.validator is None or self.validator.is_valid(given))
        fields = {
            name: float(given is not None and name in given and self._same(given[name], wanted))
            for name, wanted in target.items()
        }
        value = sum(fields.values()) / len(target.keys() | (given or {}).keys())
        wrong = [name for name, right in fields.items() if not right]
        explanation = "not a JSON object" if given is None else f"wrong: {', '.join(wrong)}" if wrong else ""
        return Score(value, value == 1.0, {**fields, "valid": float(valid)}, explanation)

    def _same(self, given: Any, wanted: Any) -> bool:
        return self._normal(given) == self._normal(wanted)

    def _normal(self, value: Any) -> Any:
        """A form in which equal means equal in JSON: Python has True == 1, JSON has not."""
        if isinstance(value, str):
            text = " ".join(value.split())
            return text.casefold() if self.ignore_case else text
        if isinstance(value, Mapping):
            return {key: self._normal(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._normal(item) for item in value]
        return ("boolean", value) if isinstance(value, bool) else value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
