"""The record of an evaluation: what is counted, what is refused, and that a file gives back what was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluation.record import Attempt, Evaluation
from posttrain.evaluation.statistics import difference_of_means, difference_of_shares, mean_interval, wilson_interval
from posttrain.types import Completion, Message, Output, Rollout, Row, Score, Task, UserError


class NoGrader:
    async def grade(self, row: Row, answer: str) -> Score:
        raise AssertionError(f"graded already: {row.id} {answer}")


TASK = Task("toy", "1", "hash", "Answer.", {}, NoGrader(), Output())


def rollout(i: int, passed: bool | None, *, slices: tuple[str, ...] = (), error: str = "") -> Rollout:
    row = Row(f"row-{i}", (Message("user", f"question {i}"),), target={"a": 1}, slices=slices)
    if error:
        return Rollout(row, error=error)
    score = Score(float(bool(passed)), bool(passed), {"valid": 1.0, "a": 0.5 if i % 2 else 1.0})
    sent = (Message("system", "Answer."), Message("user", f"question {i}"))
    return Rollout(row, sent, Completion(f"answer {i}", "stop", prompt_tokens=10 + i, completion_tokens=4), score)


def evaluation(*outcomes: bool, name: str = "one") -> Evaluation:
    return Evaluation.from_rollouts(name, TASK, "test", [rollout(i, passed) for i, passed in enumerate(outcomes)])


def test_a_failed_rollout_is_not_right_and_is_counted() -> None:
    rollouts = [rollout(0, True), rollout(1, False), rollout(2, True), rollout(3, None, error="policy: timed out")]
    found = Evaluation.from_rollouts("one", TASK, "test", rollouts)
    assert (found.n, found.score, found.error_rate, found.valid_rate) == (4, 0.5, 0.25, 1.0)
    assert found.interval == wilson_interval(2, 4)
    assert (found.prompt_tokens, found.completion_tokens) == (11.0, 4.0)  # of the three that were answered
    assert found.attempts[3].error == "policy: timed out" and found.attempts[3].valid is None
    assert found.attempts[0].target == '{"a": 1}'
    assert found.attempts[0].messages[0] == {"role": "system", "content": "Answer."}
    assert found.parts() == {"valid": 1.0, "a": pytest.approx(2.5 / 3)}


def test_valid_rate_is_unknown_when_any_text_will_do() -> None:
    plain = Rollout(Row("r", (Message("user", "q"),)), (), Completion("a", "stop"), Score(1.0, True))
    assert Evaluation.from_rollouts("one", TASK, "test", [plain]).valid_rate is None


@pytest.mark.parametrize(("output", "answer", "valid"), [
    (Output(labels=("a b", "c")), "a b", True), (Output(labels=("a b", "c")), " c\n", True),
    (Output(labels=("a b", "c")), "C", False), (Output(schema={"required": ["x"]}), '{"x": 1}', True),
    (Output(schema={"required": ["x"]}), '{"y": 1}', False), (Output(schema={}), "no record", False),
    (Output(schema={"properties": {"x": {"enum": [1]}}}), '{"x": 2}', False), (Output(), "anything", None),
])
def test_the_output_says_what_is_valid_where_the_grader_does_not(output: Output, answer: str, valid: bool | None) -> None:
    graded = Rollout(Row("r", (Message("user", "q"),)), (), Completion(answer, "stop"), Score(1.0, True))
    (attempt,) = Evaluation.from_rollouts("one", replace(TASK, output=output), "test", [graded]).attempts
    assert attempt.valid is valid
    told = replace(graded, score=Score(1.0, True, {"valid": 0.0}))
    (attempt,) = Evaluation.from_rollouts("one", replace(TASK, output=output), "test", [told]).attempts
    assert attempt.valid is False, "the grader knows better"


def test_ungraded_or_repeated_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match="never graded"):
        Evaluation.from_rollouts("one", TASK, "test", [replace(rollout(0, True), score=None)])
    with pytest.raises(ValueError, match="one attempt a row"):
        Evaluation.from_rollouts("one", TASK, "test", [rollout(0, True), rollout(0, False)])


def test_slices_and_the_worst_of_them() -> None:
    rollouts = [rollout(i, i % 3 == 0, slices=("big",) + (("tiny",) if i == 1 else ())) for i in range(9)]
    found = Evaluation.from_rollouts("one", TASK, "test", rollouts)
    assert [(part.name, part.n, part.score) for part in found.slices()] == [("big", 9, 3 / 9), ("tiny", 1, 0.0)]
    worst = found.worst_slice()
    assert worst is not None and worst.name == "big"  # one row is no slice to judge by
    assert evaluation(True).worst_slice() is None


def test_pairs_follow_row_ids_not_positions() -> None:
    one, other = evaluation(True, True, False), evaluation(False, True, True, name="other")
    shuffled = replace(other, attempts=other.attempts[::-1])
    assert one.against(shuffled) == one.against(other) == difference_of_shares([True, True, False], [False, True, True])


def test_a_task_scored_by_grade_compares_grades(tmp_path: Path) -> None:
    def graded(name: str, *grades: float) -> Evaluation:
        rollouts = [replace(rollout(i, None, slices=("odd",) if i % 2 else ()), score=Score(grade, grade > 0.7))
                    for i, grade in enumerate(grades)]
        return Evaluation.from_rollouts(name, replace(TASK, scored_by="grade"), "test", rollouts)

    one, other = graded("one", 0.5, 0.6, 0.9, 0.2), graded("other", 0.4, 0.6, 0.3, 0.1)
    assert one.score == pytest.approx(0.55) and one.interval == mean_interval([0.5, 0.6, 0.9, 0.2])
    assert [(part.score, part.n) for part in one.slices()] == [(pytest.approx(0.4), 2)]
    shuffled = replace(other, attempts=other.attempts[::-1])
    assert one.against(shuffled) == one.against(other) == difference_of_means([0.5, 0.6, 0.9, 0.2], [0.4, 0.6, 0.3, 0.1])
    assert one.against(other).value == pytest.approx(0.2) and one.against(other).test == "paired bootstrap"
    one.write(tmp_path / "test.jsonl")
    assert Evaluation.read(tmp_path / "test.jsonl") == one


def test_unlike_evaluations_refuse_to_be_compared() -> None:
    one = evaluation(True, False)
    with pytest.raises(UserError, match="different versions"):
        one.against(replace(one, task_hash="other"))
    with pytest.raises(UserError, match="different rows"):
        one.against(evaluation(True, False, True))


TEXT = st.text(max_size=30)
ATTEMPT = st.builds(
    Attempt, row_id=st.uuids().map(str), slices=st.lists(TEXT, max_size=2).map(tuple), text=TEXT,
    target=st.none() | TEXT, answer=TEXT, value=st.floats(0, 1), passed=st.booleans(), seconds=st.floats(0, 9),
    messages=st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=2).map(tuple),
    parts=st.dictionaries(TEXT, st.floats(0, 1), max_size=2), valid=st.none() | st.booleans(), error=TEXT,
    confidence=st.none() | st.floats(0, 1))


@given(attempts=st.lists(ATTEMPT, max_size=4))
def test_what_was_written_is_read_back(attempts: list[Attempt], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("evaluation") / "test.jsonl"
    written = Evaluation("one", "toy", "hash", "test", tuple(attempts))
    written.write(path)
    assert Evaluation.read(path) == written


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    evaluation(True, False, True).write(path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="not a whole evaluation"):
        Evaluation.read(path)
    with pytest.raises(UserError, match="not a whole evaluation"):
        Evaluation.read(tmp_path / "missing.jsonl")
    evaluation(True).write(path)
    header, line = path.read_text().splitlines()
    for damaged in ("[1]", "3", '{"schema": 1}', line[:-1] + ', "odd": 1}'):
        path.write_text(f"{header}\n{damaged}\n")
        with pytest.raises(UserError, match="not a whole evaluation"):
            Evaluation.read(path)
