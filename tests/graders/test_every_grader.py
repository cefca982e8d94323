"""Every grader file keeps the contract: the wanted answer scores 1, an empty one 0, options are strict."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from posttrain import graders
from posttrain.discovery import names
from posttrain.types import Message, Output, RolloutError, Row, Score, Target, UserError, target_text


@dataclass(frozen=True)
class Example:
    """A row's target, an answer that is wrong, and what the grader needs."""

    target: Target
    wrong: str
    options: dict[str, Any] = field(default_factory=dict)
    output: Output = field(default_factory=Output)
    metadata: dict[str, Any] = field(default_factory=dict)


SCHEMA = {"type": "object", "properties": {"queue": {"enum": ["a", "b"]}, "reference": {"type": ["string", "null"]}},
          "required": ["queue", "reference"], "additionalProperties": False}
EXAMPLES = {
    "exact": [Example("Paris", "London"), Example("Ünïcode  text", "no", {"ignore_case": True}),
              Example("a-b", "ac", {"ignore_punctuation": True})],
    "contains": [Example("Paris", "London"), Example("C++ (2.0)", "C"), Example("7", "17"),
                 Example("GB-12", "12", {"pattern": r"^[A-Z]{2}-\d+$"}), Example("P.ris", "London", {"regex": True})],
    "choice": [Example("card_lost", "card", output=Output(labels=("card_lost", "other"))),
               Example("1", "2", output=Output(labels=("1", "2")))],
    "number": [Example("11", "12"), Example("-3.5", "3.5"), Example("1,234", "1"), Example("0", "1"),
               Example("3.33333", "3.4", {"tolerance": 0.01})],
    "json": [Example({"queue": "a", "reference": None}, '{"queue": "b"}', output=Output(schema=SCHEMA)),
             Example({"n": 1, "nested": {"x": [True, None]}}, "{}"), Example('{"k": "v"}', "v")],
    "similarity": [Example("the cat sat on the mat", "dogs"), Example("日本語 です", "x", {"metric": "ratio"}),
                   Example("!?", "x")],
    "python": [Example("yes", "no")],
    "openai": [Example("yes", "no", metadata={"wanted": "yes"})],
    "code": [
        Example("def double(x):\n    return 2 * x\n", "def double(x):\n    return x\n",
                metadata={"function": "double", "tests": [{"arguments": [2], "returns": 4}, "assert double('a') == 'aa'"]}),
        Example("```python\nprint(int(input()) * 2)\n```", "print(4)", {"partial": True, "seconds": 10},
                metadata={"tests": [{"input": "2", "output": "4"}, {"input": "3\n", "output": "6\n"}]}),
    ],
    "assertions": [Example("four", "five", metadata={"assert": [{"type": "contains", "value": "four"},
                                                                {"type": "not-contains", "value": "five"}]})],
}


OPENAI = {"type": "multi", "name": "both", "calculate_output": "(equal + 3 * same_function) / 4", "graders": {
    "equal": {"type": "string_check", "name": "equal", "input": "{{sample.output_text}}", "reference": "{{item.wanted}}",
              "operation": "eq"},
    "same_function": {"type": "python", "name": "p",
                      "source": "def grade(sample, item):\n    return sample['output_text'] == item['wanted']"}}}


def write_graders(folder: Path) -> None:
    """What the options' default files hold."""
    (folder / "grade.py").write_text("def grade(row, answer):\n    return answer == row.target\n")
    (folder / "grader.json").write_text(json.dumps(OPENAI))


def grade(grader: Any, row: Row, answer: str) -> Score:
    return asyncio.run(grader.grade(row, answer))


def test_every_grader_has_an_example() -> None:
    assert set(names("graders")) == set(EXAMPLES)


@pytest.mark.parametrize(("name", "example"), [(name, one) for name, many in EXAMPLES.items() for one in many])
def test_gold_scores_one_wrong_and_empty_zero(name: str, example: Example, tmp_path: Path) -> None:
    write_graders(tmp_path)
    grader = graders.load(name, example.options, tmp_path, example.output)
    row = Row("r", (Message("user", "?"),), target=example.target, metadata=example.metadata)
    gold = grade(grader, row, target_text(example.target))
    assert gold.value == 1.0 and gold.passed
    assert gold.parts.get("valid", 1.0) == 1.0
    for answer in ("", " \n"):
        empty = grade(grader, row, answer)
        assert empty.value == 0.0 and not empty.passed and empty.parts.get("valid", 0.0) == 0.0
    wrong = grade(grader, row, example.wrong)
    assert wrong.value < 1.0 and not wrong.passed


@pytest.mark.parametrize("name", EXAMPLES)
def test_any_text_is_an_answer(name: str, tmp_path: Path) -> None:
    """A bad answer is a low score, whatever it holds."""
    write_graders(tmp_path)
    example = EXAMPLES[name][0]
    grader = graders.load(name, example.options, tmp_path, example.output)
    row = Row("r", (Message("user", "?"),), target=example.target, metadata=example.metadata)
    for answer in ("\x00", "{", "[" * 100_000, "9" * 50_000, "1e99999999999999999999", "NaN", "Infinity", "\ud800",
                   '{"a": NaN}', "💥" * 1000, '{"queue": "a", "queue": "a"}', "-" * 20_000, "1," * 20_000):
        score = grade(grader, row, answer)
        assert 0.0 <= score.value < 1.0


@pytest.mark.parametrize("name", EXAMPLES)
def test_unknown_options_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "grade.py").write_text("def grade(row, answer):\n    return 1\n")
    with pytest.raises(UserError, match="no option 'tolerence'"):
        graders.load(name, {"tolerence": 1}, tmp_path, EXAMPLES[name][0].output)


@pytest.mark.parametrize(("name", "option", "value", "message"), [
    ("exact", "ignore_case", "no", "ignore_case of grader exact is a str"), ("number", "tolerance", True, "is a bool"),
    ("number", "tolerance", "0.1", "is a str"), ("contains", "pattern", 5, "is a int"), ("exact", "ignore_case", 0, "is a int"),
])
def test_options_have_types(name: str, option: str, value: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(f'[grader]\nname = "{name}"\n{option} = ...\n')
    with pytest.raises(UserError, match=message) as error:
        graders.load(name, {option: value}, tmp_path)
    assert error.value.place == f"{tmp_path / 'task.toml'}:3" and error.value.remedy
    assert graders.load("number", {"tolerance": 1})


def test_a_row_without_a_target_is_the_graders_failure(tmp_path: Path) -> None:
    write_graders(tmp_path)
    (tmp_path / "grade.py").write_text("def grade(row, answer):\n    return answer == row.target.strip()\n")
    for name, (example, *_) in EXAMPLES.items():
        grader = graders.load(name, example.options, tmp_path, example.output)
        with pytest.raises(RolloutError, match="row r-17"):
            grade(grader, Row("r-17", (Message("user", "?"),)), "x")


def test_nearest_grader_and_option_are_named() -> None:
    with pytest.raises(UserError) as unknown:
        graders.load("nunber", {})
    assert "'number'" in unknown.value.remedy
    with pytest.raises(UserError) as option:
        graders.load("number", {"tolerence": 1})
    assert "'tolerance'" in option.value.remedy
