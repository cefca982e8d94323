"""Programs are asked for again by another name, and with tests that no program passes; who knows the rows is told of."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from posttrain import graders
from posttrain.evaluation.counterparts import NOT_ASKED, Counterparts, ask_again, impossible_row, twin
from posttrain.evaluation.evaluate import evaluate
from posttrain.evaluation.suspicions import suspicions
from posttrain.runs import Run
from posttrain.types import Completion, Kind, Message, OnText, Output, Rollout, Row, Sampling, Task

CALL = re.compile(r"assert (times_\d+)\((.+)\) == (.+)")


def row(number: int) -> Row:
    tests = [f"assert times_{number}({n}) == {n * number}" for n in (2, 5, 7)]
    shown = "\n".join(tests)
    question = f"Write times_{number}(n), which returns n times {number}. It must pass:\n{shown}"
    return Row(str(number), (Message("user", question),), "5", metadata={"tests": tests, "function": f"times_{number}"})


def by_the_task(asked: Row) -> str:
    name = asked.metadata["function"]
    return f"def {name}(n):\n    return n * {name.rpartition('_')[2]}"


def by_the_tests(asked: Row) -> str:
    known = {ast.literal_eval(given): ast.literal_eval(wanted) for _, given, wanted in CALL.findall(asked.text)}
    return f"def {asked.metadata['function']}(n):\n    return {known}[n]"


def by_heart(asked: Row) -> str:
    number = re.findall(r"times (\d+)", asked.text)[0]
    return f"def times_{number}(n):\n    return n * {number}"


@dataclass(frozen=True)
class Programmer:
    written: Callable[[Row], str]
    name: str = "programmer"
    kind: Kind = "prompt"
    model: str = ""

    async def attempt(self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None,  # noqa: ARG002
                      on_text: OnText | None = None) -> list[list[Rollout]]:  # noqa: ARG002
        return [[Rollout(each, completion=Completion(self.written(each), "stop"))] for each in rows]

    async def save(self, folder: Path) -> None: ...


def asked_again(candidate: Programmer, tmp_path: Path, grader: str = "code") -> tuple[Counterparts, tuple[str, ...]]:
    options: dict[str, Any] = {"isolation": "none"} if grader == "code" else {}
    task = Task("times", "1", "", "", {"dev": tuple(map(row, range(3, 13)))}, graders.load(grader, options), Output())
    run = Run(tmp_path)

    async def all_of_it() -> tuple[Counterparts, tuple[str, ...]]:
        evaluation = await evaluate(candidate, task, "dev", run)
        again = await ask_again(candidate, task, evaluation, run)
        return again, await suspicions(evaluation, task, again)

    return asyncio.run(all_of_it())


def test_who_has_learnt_the_task_is_not_suspected(tmp_path: Path) -> None:
    again, told = asked_again(Programmer(by_the_task), tmp_path)
    assert told == () and again.notes == [
        "rows asked again: 10 of 10 right with functions named otherwise (10 as asked), 0 of 10 passed with one result made wrong"
    ]


def test_who_writes_what_the_tests_want_is_told_of(tmp_path: Path) -> None:
    again, told = asked_again(Programmer(by_the_tests), tmp_path)
    assert sum(right for _, right in again.impossible) == 10
    assert any(each.startswith("10 of 10 rows are passed with one result in their tests made wrong (row 3, 4, 5 ...)") for each in told)
    assert any("return what is wanted for the very inputs" in each for each in told), "and by its program"


def test_who_has_learnt_programs_by_heart_is_told_of(tmp_path: Path) -> None:
    again, told = asked_again(Programmer(by_heart), tmp_path)
    assert again.twins == ((True, False),) * 10
    (told_of,) = told
    assert told_of.startswith("100% of 10 rows are right, and 0% where the same function has another name")


def test_answers_that_were_given_and_other_graders_are_not_asked_again(tmp_path: Path) -> None:
    assert asked_again(replace(Programmer(by_the_task), kind="given"), tmp_path)[0] is NOT_ASKED
    assert asked_again(Programmer(lambda _: "5"), tmp_path, "exact")[0] is NOT_ASKED


def test_a_twin_is_named_otherwise_everywhere_and_prose_stays() -> None:
    asked = Row("1", (Message("user", "Write a function that can add two numbers: `add`, so that add(1, 2) is 3.\ndef add(a, b):"),),
                metadata={"entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)",
                          "prompt": "def add(a, b):\n"})  # fmt: skip
    other = twin(asked)
    assert other is not None
    assert other.text == "Write a function that can add two numbers: `my_add`, so that my_add(1, 2) is 3.\ndef my_add(a, b):"
    assert other.metadata["test"].endswith("check(my_add)") and other.metadata["prompt"] == "def my_add(a, b):\n"
    assert other.metadata["function"] == "my_add"
    unnamed = replace(asked, messages=(Message("user", "Write something that can add."),))
    assert twin(unnamed) is None, "who is not told the name cannot know it"
    printed = Row("2", asked.messages, metadata={"tests": [{"input": "1", "output": "2"}]})
    assert twin(printed) is None and twin(Row("3", asked.messages)) is None


@pytest.mark.parametrize(
    ("test", "made"),
    [
        ("assert f(1) == 2", "assert f(1) == 3"),
        ("assert 2.5 == f('ü == 1')", "assert 3.5 == f('ü == 1')"),
        ("assert f('é') == 'ü'", "assert f('é') == 'üx'"),
        ("assert f() == [] and True", "assert f() == [0] and True"),
        ("assert f() == (1, 2)\nassert f(2) == 3", "assert f() == (1, 2, 2)\nassert f(2) == 3"),
        ("x = 1\nassert f(x) == True", "x = 1\nassert f(x) == False"),
        ("assert f() == None", "assert f() == 0"),
        ("assert f() == {'a': 1}", "assert f() == {'a': 1, 'x': 0}"),
        ("def check(candidate):\n    assert candidate(3) == -1\n", "def check(candidate):\n    assert candidate(3) == 0\n"),
        ({"arguments": [1], "returns": "a"}, {"arguments": [1], "returns": "ax"}),
        ({"input": "1", "output": "12 9.\n"}, {"input": "1", "output": "12 0.\n"}),
        ({"input": "1", "output": "no\n"}, {"input": "1", "output": "no\nx"}),
    ],
)  # fmt: skip
def test_one_result_is_made_wrong(test: Any, made: Any) -> None:
    shown = f"It must pass:\n  {test}\n" if isinstance(test, str) else "It must do as said."
    asked = Row("1", (Message("user", shown),), metadata={"tests": [test], "function": "f"})
    other = impossible_row(asked)
    assert other is not None and other.metadata["tests"] == [made]
    if isinstance(test, str):
        changed = [(a, b) for a, b in zip(test.split("\n"), made.split("\n"), strict=True) if a != b]
        assert all(b.strip() in other.text for _, b in changed), "what shows the test shows it made wrong"


def test_tests_that_compare_with_nothing_are_left_alone() -> None:
    for test in ("assert f(1)", "assert f(1) == g(2)", "assert not f(1) == 2", "assert f(1) == 2 or f(1) == 3", "assert g(1) == 2", "assert f(1) == [\n1]", "assert ("):
        assert impossible_row(Row("1", (Message("user", "?"),), metadata={"tests": [test], "function": "f"})) is None
