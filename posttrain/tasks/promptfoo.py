"""promptfoo's tests (https://www.promptfoo.dev/docs/configuration/test-cases/) as rows.

A test is `{vars, assert}`.  Its assertions stay with the row and are graded by `assertions`; a single `equals` is a
target as well, so that a file of nothing else can be taught and graded like any other.  The input is the prompt with
its `{{variables}}` filled in where the file has one inline prompt, else the only variable, else all, one a line.
In a table each column is a variable, but for `__expected`, which has an assertion as `type:value`, or the text wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from posttrain.graders.assertions import check_assertions
from posttrain.types import UserError

OURS = ("id", "answer", "contexts", "slices")
KNOWN = {"vars", "assert", "description", "prompt", "metadata", *OURS}
EXPECTED = re.compile(r"__expected\d*")
WRITTEN = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:\((\d+(?:\.\d+)?)\))?:(.*)", re.DOTALL)
"""An assertion in a table: its type, perhaps a threshold, its value."""


def tests(document: Mapping[str, Any], place: str) -> list[Any]:
    """The tests of a configuration, with its default test and its prompt put into each."""
    given = document.get("tests")
    if isinstance(given, str):
        remedy = f"give that file instead: {given.removeprefix('file://')}"
        raise UserError("the tests are in another file", place=place, remedy=remedy)
    if not isinstance(given, list):
        raise UserError(
            "a document without a list `tests`",
            place=place,
            remedy="give a list of rows, or a promptfoo configuration with its tests inline",
        )
    default = document.get("defaultTest") or {}
    prompts = document.get("prompts") or []
    prompt = prompts[0] if len(prompts) == 1 and isinstance(prompts[0], str) and "{{" in prompts[0] else None
    return [_merged(test, default, prompt) if isinstance(test, dict) else test for test in given]


def _merged(test: Mapping[str, Any], default: Mapping[str, Any], prompt: str | None) -> dict[str, Any]:
    merged = {**default, **test}
    merged["vars"] = {**(default.get("vars") or {}), **(test.get("vars") or {})}
    merged["assert"] = [*(default.get("assert") or []), *(test.get("assert") or [])]
    return {**merged, "prompt": prompt} if prompt else merged


def table_fields(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The fields of a row for one line of a table.  Raises UserError as `row_fields` does."""
    expected = [value for name, value in fields.items() if EXPECTED.fullmatch(name) and value is not None]
    test: dict[str, Any] = {"vars": {}, "assert": [_written(str(text)) for text in expected]}
    for name, value in fields.items():
        if not name.startswith("__") and name not in OURS:
            test["vars"][name] = "" if value is None else value
        elif value is not None and name != "__description" and not EXPECTED.fullmatch(name):
            test[name] = value
    return row_fields(test, place)


def _written(text: str) -> dict[str, Any]:
    if text.removeprefix("not-") in ("is-json", "contains-json"):
        return {"type": text}
    found = WRITTEN.fullmatch(text)
    if not found:
        return {"type": "equals", "value": text}
    kind, threshold, value = found.groups()
    return {"type": kind, "value": value.strip()} | ({"threshold": float(threshold)} if threshold else {})


def row_fields(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The fields of a row for one test.  Raises UserError for an assertion that cannot be graded here."""
    unknown = sorted(fields.keys() - KNOWN)
    if unknown:
        raise UserError(f"the test has {unknown[0]!r}, which is not understood", place=place, remedy="remove it")
    variables, assertions = fields["vars"], fields.get("assert") or []
    if not isinstance(variables, Mapping) or not variables:
        raise UserError("the test has no vars", place=place, remedy="give the input as a variable")
    several = next((name for name, value in variables.items() if isinstance(value, (list, dict))), None)
    if several is not None:
        raise UserError(f"the variable {several!r} has several values", place=place, remedy="write a test for each")
    if isinstance(assertions, list):
        assertions = [_filled(one, variables, place) for one in assertions]
    row = {key: fields.get(key) for key in OURS}
    row["input"] = _input(variables, fields.get("prompt"), place)
    problem = check_assertions(assertions)
    if problem:
        raise UserError(problem, place=place, remedy="use a deterministic assertion, or a python grader")
    row["metadata"] = {**(fields.get("metadata") or {}), "assert": assertions}
    if len(assertions) == 1 and assertions[0]["type"] == "equals":
        row["target"] = assertions[0].get("value")
    return row


def _input(variables: Mapping[str, Any], prompt: str | None, place: str) -> str:
    if prompt:
        return str(_filled(prompt, variables, place))
    if len(variables) == 1:
        return str(next(iter(variables.values())))
    return "\n".join(f"{name}: {value}" for name, value in variables.items())


def _filled(template: Any, variables: Mapping[str, Any], place: str) -> Any:
    """The template (a text, or the texts within a list or mapping) with its `{{variables}}` filled in."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1).strip()
        if name not in variables:
            remedy = "give it under vars; filters and blocks of templates are not known here"
            raise UserError(f"nothing to put in the place of {match.group()!r}", place=place, remedy=remedy)
        return str(variables[name])

    if isinstance(template, str):
        return re.sub(r"\{[{%](.*?)[%}]\}", fill, template, flags=re.DOTALL)
    if isinstance(template, list):
        return [_filled(item, variables, place) for item in template]
    if isinstance(template, Mapping):
        return {key: _filled(item, variables, place) for key, item in template.items()}
    return template
