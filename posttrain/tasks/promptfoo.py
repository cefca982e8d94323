"""promptfoo's tests (https://www.promptfoo.dev/docs/configuration/test-cases/) as rows.

A test is `{vars, assert}`.  Its assertions stay with the row and are graded by `assertions`; a single `equals` is a
target as well, so that a file of nothing else can be taught and graded like any other.  The input is the first prompt
with its `{{variables}}` filled in, where the file has prompts; else the only variable, else all, one a line.
In a table each column is a variable, but for `__expected`, which has an assertion as `type:value`, or the text wanted.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.graders.assertions import as_written, check_assertions
from posttrain.tasks.file_links import followed, followed_text, is_link
from posttrain.types import UserError

OURS = ("id", "answer", "contexts", "slices")
NOTE = "__note"
"""The field of a test that has what is to be said of its configuration."""
KNOWN = {"vars", "assert", "description", "prompt", "metadata", NOTE, *OURS}
BETWEEN_PROMPTS = re.compile(r"^---[ \t]*$", re.M)
"""Between the prompts of one text file."""
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
    folder = Path(place).parent
    default = linked(document.get("defaultTest") or {}, folder, f"{place}, defaultTest")
    prompt, note = _prompt(document.get("prompts") or [], folder, place)
    return [
        _merged(linked(test, folder, f"{place}, item {number}"), default, prompt, note)
        if isinstance(test, dict)
        else test
        for number, test in enumerate(given, 1)
    ]


def _prompt(prompts: Any, folder: Path, place: str) -> tuple[Any, str]:
    """The first prompt, a text or messages (None where the variables alone are asked), and what is to be said of it."""
    given = prompts if isinstance(prompts, list) else [prompts]
    if not given:
        return None, ""
    named = given[0].get("raw") or given[0].get("id") if isinstance(given[0], Mapping) else given[0]
    first, *more = followed(named, folder, place), *given[1:]
    if is_link(named) and named.endswith(".txt"):
        first, *others = [text.strip() for text in BETWEEN_PROMPTS.split(first)]
        more += others
    if not isinstance(first, (str, list)):
        raise UserError("a prompt is neither a text nor messages", place=place, remedy="write its text under prompts")
    shown = textwrap.shorten(str(named), 60)
    if "{{" not in str(first):
        return None, f"prompts: {shown!r} has no {{{{variable}}}}, so the variables alone are asked"
    return first, f"prompts: the first of {len(more) + 1} is asked, {shown!r}" if more else ""


def linked(test: Any, folder: Path, place: str) -> dict[str, Any]:
    """A test with what the files hold that its `file://` name, in `folder`.  Raises UserError for one that is none."""
    test = followed(test, folder, place)
    if not isinstance(test, Mapping):
        raise UserError(f"a test is a {type(test).__name__}", place=place, remedy="write vars and assert under it")
    variables = followed(test.get("vars") or {}, folder, place)
    if not isinstance(variables, Mapping):
        remedy = "write name: value under vars, or file://NAME.yaml"
        raise UserError(f"vars is a {type(variables).__name__}, not names with values", place=place, remedy=remedy)
    assertions = followed(test.get("assert") or [], folder, place)
    if not isinstance(assertions, list):
        raise UserError("assert is not a list of {type, value}", place=place, remedy="write - type: ... under assert")
    checks = [followed(one, folder, place) for one in assertions]
    return {
        **test,
        "vars": {name: followed_text(value, folder, place) for name, value in variables.items()},
        "assert": [
            {**one, "value": followed(one.get("value"), folder, place)} if isinstance(one, Mapping) else one
            for one in checks
        ],
    }


def _merged(test: Mapping[str, Any], default: Mapping[str, Any], prompt: Any, note: str) -> dict[str, Any]:
    merged = {**default, **test, "vars": default["vars"] | test["vars"], "assert": default["assert"] + test["assert"]}
    return merged | ({"prompt": prompt} if prompt else {}) | ({NOTE: note} if note else {})


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
        checked = [one.get("value") for one in assertions if isinstance(one, Mapping)]
        link = next((value for value in (*variables.values(), *checked) if is_link(value)), None)
        if link is not None:
            remedy = "write what is in the file; files are read for tests in YAML or JSON only"
            raise UserError(f"{link} is not read", place=place, remedy=remedy)
    row = {key: fields.get(key) for key in OURS}
    row["input"] = _input(variables, fields.get("prompt"), place)
    problem = check_assertions(assertions)
    if problem:
        raise UserError(problem, place=place, remedy="use a deterministic assertion, or a python grader")
    row["metadata"] = {**(fields.get("metadata") or {}), "assert": assertions}
    if len(assertions) == 1 and assertions[0]["type"] == "equals":
        row["target"] = assertions[0].get("value")
    return row


def _input(variables: Mapping[str, Any], prompt: Any, place: str) -> Any:
    """What is asked: a text, or the messages of a prompt that has some."""
    if prompt:
        return _filled(prompt, variables, place)
    if len(variables) == 1:
        return as_written(next(iter(variables.values())))
    return "\n".join(f"{name}: {as_written(value)}" for name, value in variables.items())


def _filled(template: Any, variables: Mapping[str, Any], place: str) -> Any:
    """The template (a text, or the texts within a list or mapping) with its `{{variables}}` filled in."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1).strip()
        if name not in variables:
            remedy = "give it under vars; filters and blocks of templates are not known here"
            raise UserError(f"nothing to put in the place of {match.group()!r}", place=place, remedy=remedy)
        return as_written(variables[name])

    if isinstance(template, str):
        return re.sub(r"\{[{%](.*?)[%}]\}", fill, template, flags=re.DOTALL)
    if isinstance(template, list):
        return [_filled(item, variables, place) for item in template]
    if isinstance(template, Mapping):
        return {key: _filled(item, variables, place) for key, item in template.items()}
    return template
