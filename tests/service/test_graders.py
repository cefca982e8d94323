"""Graders by themselves, through the unmodified client."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz
from service import Service

from posttrain.graders._openai._formula import Formula
from posttrain.graders._openai._templates import NoValue, Template
from posttrain.sandbox import Limits
from posttrain.sandbox.calling import CallFailed, Function
from posttrain.types import UserError

TEXTS = {"input": "{{sample.output_text}}", "reference": "{{item.wanted}}"}


def check(operation: str, name: str = "check", **more: Any) -> dict[str, Any]:
    return {"type": "string_check", "name": name, "operation": operation, **TEXTS, **more}


def python(source: str) -> dict[str, Any]:
    return {"type": "python", "name": "own", "source": source}


def similarity(metric: str) -> dict[str, Any]:
    return {"type": "text_similarity", "name": "near", "evaluation_metric": metric, **TEXTS}


RUNS: list[tuple[dict[str, Any], str, dict[str, Any], float]] = [
    (check("eq"), "yes", {"wanted": "yes"}, 1),
    (check("eq"), "Yes", {"wanted": "yes"}, 0),
    (check("ne"), "Yes", {"wanted": "yes"}, 1),
    (check("like"), "oh yes", {"wanted": "yes"}, 1),
    (check("like"), "oh Yes", {"wanted": "yes"}, 0),
    (check("ilike"), "oh Yes", {"wanted": "yes"}, 1),
    (check("eq", input="{{sample.output_json.a[1].b}}"), '{"a": [0, {"b": 7}]}', {"wanted": 7}, 1),
    (check("eq", reference="{{item.deep.list[0]}}!"), "x!", {"deep": {"list": ["x"]}}, 1),
    (similarity("fuzzy_match"), "fuzzy wuzzy", {"wanted": "wuzzy fuzzy"}, fuzz.WRatio("fuzzy wuzzy", "wuzzy fuzzy") / 100),
    (similarity("rouge_1"), "the cat", {"wanted": "the cat sat"}, 0.8),
    (similarity("rouge_2"), "the cat", {"wanted": "the cat sat"}, 2 / 3),
    (similarity("rouge_l"), "cat the", {"wanted": "the cat"}, 0.5),
    (similarity("gleu"), "a b c d", {"wanted": "a b c d"}, 1),
    (similarity("bleu"), "a b c d", {"wanted": "a b c d"}, 1),
    (similarity("bleu"), "", {"wanted": "a b c d"}, 0),
    (python("def grade(sample, item):\n    return len(sample['output_text']) / item['n']"), "four", {"n": 8}, 0.5),
    ({"type": "multi", "name": "m", "graders": [check("eq"), similarity("rouge_1")],
      "calculate_output": "0.5 * string_check_score + 0.5 * text_similarity_score"}, "the cat", {"wanted": "the cat sat"}, 0.4),
    ({"type": "multi", "name": "m", "graders": {"a": check("eq"), "b": check("like")},
      "calculate_output": "max(a, b) - 2^-1"}, "the cat", {"wanted": "cat"}, 0.5),
    ({"type": "multi", "name": "m", "graders": check("eq", name="c"), "calculate_output": "string_check_score"}, "x", {"wanted": "x"}, 1),
]


@pytest.mark.parametrize("grader, answer, item, reward", RUNS)
def test_rewards(tiny_service: Service, grader: Any, answer: str, item: Any, reward: float) -> None:
    graders = tiny_service.client.fine_tuning.alpha.graders
    found = graders.run(grader=grader, model_sample=answer, item=item)
    assert found.reward == pytest.approx(reward) and found.metadata.type == grader["type"]
    assert not [name for name, value in found.metadata.errors if value]
    assert graders.validate(grader=grader).grader.type == grader["type"]  # type: ignore[union-attr]


FAILED = [
    (check("eq"), "yes", {}, "invalid_variable_error"),
    (check("eq", input="{{sample.output_json.a}}"), "no json", {"wanted": "x"}, "sample_parse_error"),
    (python("def grade(sample, item):\n    raise ValueError('no')"), "x", {}, "python_grader_runtime_error"),
    (python("def grade(sample, item):\n    return 'good'"), "x", {}, "python_grader_runtime_error"),
    (python("def grade(sample, item):\n    import socket; socket.create_connection(('1.1.1.1', 53), 3)"), "x", {},
     "python_grader_runtime_error"),
    ({"type": "multi", "name": "m", "graders": {"a": check("eq")}, "calculate_output": "1 / a"}, "x", {"wanted": "y"},
     "formula_parse_error"),
]


@pytest.mark.parametrize("grader, answer, item, error", FAILED, ids=[error for *_, error in FAILED])
def test_what_fails_is_told_by_its_name(tiny_service: Service, grader: Any, answer: str, item: Any, error: str) -> None:
    found = tiny_service.client.fine_tuning.alpha.graders.run(grader=grader, model_sample=answer, item=item)
    assert found.reward == 0 and getattr(found.metadata.errors, error) is True


REFUSED = [
    ({"type": "oracle", "name": "o"}, "type"),
    ({"type": "string_check", "name": "c", "operation": "eq", "input": "x"}, "reference"),
    (check("equals"), "operation"),
    (check("eq", input="{{ env.HOME }}"), "input"),
    (similarity("cosine"), "evaluation_metric"),
    (python("def grade(sample, item)"), "source"),
    (python("x = 1"), "source"),
    (python("#" * 300_000 + "\ndef grade(sample, item): ..."), "source"),
    ({"type": "multi", "name": "m", "graders": {}, "calculate_output": "1"}, "graders"),
    ({"type": "multi", "name": "m", "graders": {"a": check("eq")}, "calculate_output": "b + 1"}, "calculate_output"),
    ({"type": "multi", "name": "m", "graders": {"a": check("eq")}, "calculate_output": "__import__('os')"}, "calculate_output"),
    ({"type": "multi", "name": "m", "graders": {"a": check("eq")}, "calculate_output": "(" * 5000}, "calculate_output"),
]


@pytest.mark.parametrize("grader, param", REFUSED)
def test_what_is_wrong_with_one_is_named(tiny_service: Service, grader: Any, param: str) -> None:
    for call in (lambda graders: graders.validate(grader=grader),
                 lambda graders: graders.run(grader=grader, model_sample="x", item={})):
        with pytest.raises(openai.BadRequestError) as refused:
            call(tiny_service.client.fine_tuning.alpha.graders)
        assert refused.value.param == f"grader.{param}"


def test_a_function_that_never_ends_is_ended() -> None:
    """Here and not over HTTP, with less patience."""
    function = Function("def f(text):\n    while text == 'for ever': pass\n    return 2.5", "f", Limits(seconds=1))
    with pytest.raises(CallFailed):
        function("for ever")
    assert function("once") == 2.5, "the next call has a process of its own"


numbers = st.floats(-10, 10, allow_nan=False)


@given(numbers, numbers, st.sampled_from("+-*"))
def test_a_formula_is_its_arithmetic(a: float, b: float, operator: str) -> None:
    wanted = {"+": a + b, "-": a - b, "*": a * b}[operator]
    assert Formula(f"a {operator} b", ["a", "b"]).value({"a": a, "b": b}) == wanted
    assert Formula(f"min(a {operator} b, abs(b), 1)", ["a", "b"]).value({"a": a, "b": b}) == min(wanted, abs(b), 1)


@given(st.text())
def test_any_text_is_a_formula_or_is_refused(text: str) -> None:
    try:
        Formula(text, ["a"]).value({"a": 0.5})
    except (UserError, ArithmeticError, ValueError, TypeError) as error:
        assert not isinstance(error, TypeError)


@given(st.text(), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_any_text_is_a_template_or_is_refused(text: str, item: dict[str, str]) -> None:
    try:
        filled = Template(text, "x").fill(item, {})
    except (UserError, NoValue):
        return
    assert "{{" in text or filled == text
