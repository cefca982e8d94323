"""The floors learn what they can, say how sure they are, and are the same after saving."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triage import label_task, record, record_task, task_of

from posttrain import candidates
from posttrain.candidates._features import TextFeatures
from posttrain.candidates.linear import Classifier, LinearCandidate
from posttrain.runs import Run
from posttrain.techniques import constant, linear, nearest
from posttrain.types import Candidate, Message, Output, Rollout, Row, Sampling, Task, UserError

FLOORS = {"constant": constant, "nearest": nearest, "linear": linear}
NOBODY: Candidate = None  # type: ignore[assignment]  # floors build on nothing
RECORDS, LABELS = record_task(), label_task()


def taught(name: str, task: Task, folder: Path) -> Candidate:
    return asyncio.run(FLOORS[name].teach(NOBODY, task, Run(folder)))  # type: ignore[attr-defined]


def answers(candidate: Candidate, texts: list[str]) -> list[Rollout]:
    rows = [Row(str(i), (Message("user", text),)) for i, text in enumerate(texts)]
    return [group[0] for group in asyncio.run(candidate.attempt(rows))]


def score(candidate: Candidate, task: Task) -> float:
    """Share of test rows wholly right."""
    rollouts = [group[0] for group in asyncio.run(candidate.attempt(task.rows("test")))]
    scores = [asyncio.run(task.grader.grade(rollout.row, rollout.answer)) for rollout in rollouts]
    return sum(one.passed for one in scores) / len(scores)


@pytest.fixture(scope="module", params=[(name, task) for name in FLOORS for task in ("records", "labels")], ids=str)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Candidate, Candidate]:
    name, task = request.param
    folder = tmp_path_factory.mktemp(name)
    candidate = taught(name, {"records": RECORDS, "labels": LABELS}[task], folder / "run")
    asyncio.run(candidate.save(folder / "saved"))
    return candidate, candidates.load(folder / "saved")


def test_each_floor_beats_the_one_below(tmp_path: Path) -> None:
    for task in (RECORDS, LABELS):
        scores = [score(taught(name, task, tmp_path), task) for name in ("constant", "nearest", "linear")]
        assert scores[0] < scores[1] < scores[2] and scores[2] > 0.9, scores


@given(texts=st.lists(st.text(max_size=30) | st.sampled_from([row.text for row in RECORDS.rows("test")]), max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_saved_floor_answers_identically(saved: tuple[Candidate, Candidate], texts: list[str]) -> None:
    taught_one, loaded = saved
    assert (loaded.name, loaded.kind, loaded.model) == (taught_one.name, "floor", "")
    given_answers, again = answers(taught_one, texts), answers(loaded, texts)
    assert [(one.answer, one.completion and one.completion.confidence) for one in given_answers] == [
        (one.answer, one.completion and one.completion.confidence) for one in again]
    one_by_one = [answers(loaded, [text])[0].answer for text in texts]
    assert one_by_one == [one.answer for one in again], "an answer does not depend on what else is asked"


def test_attempts_are_rollouts(saved: tuple[Candidate, Candidate]) -> None:
    shown = []
    rows = RECORDS.rows("test")[:3]
    groups = asyncio.run(saved[0].attempt(rows, n=2, sampling=Sampling(temperature=1.0),
                                          on_text=lambda *piece: shown.append(piece)))
    assert [[rollout.row for rollout in group] for group in groups] == [[row, row] for row in rows]
    assert shown == [(i, j, groups[i][j].answer) for i in range(3) for j in range(2)]
    for rollout in (rollout for group in groups for rollout in group):
        assert rollout.completion and rollout.completion.stop_reason == "stop" and not rollout.error
        assert rollout.seconds > 0 and rollout.completion.tokens == ()


def test_no_array_file_holds_pickles(tmp_path: Path) -> None:
    for name in ("nearest", "linear"):
        asyncio.run(taught(name, LABELS, tmp_path).save(tmp_path / name))
        with numpy.load(tmp_path / name / "arrays.npz", allow_pickle=False) as file:
            assert all(file[key].dtype != object for key in file)
        (tmp_path / name / "arrays.npz").write_bytes(b"junk")
        with pytest.raises(UserError, match="not readable"):
            candidates.load(tmp_path / name)


def test_the_confidence_of_linear_is_calibrated(tmp_path: Path) -> None:
    candidate = taught("linear", RECORDS, tmp_path)
    rollouts = [group[0] for group in asyncio.run(candidate.attempt(RECORDS.rows("test")))]
    confidences = [rollout.completion.confidence or 0 for rollout in rollouts if rollout.completion]
    assert all(0 < confidence <= 1 for confidence in confidences)
    assert sum(confidences) / len(confidences) == pytest.approx(score(candidate, RECORDS), abs=0.1)


def test_the_confidence_of_a_record_is_that_of_all_its_fields() -> None:
    features = TextFeatures.fit(["some words"])
    width = len(features.idf)
    undecided = {name: Classifier(values, numpy.zeros((len(values), width)), numpy.zeros(len(values)))
                 for name, values in {"two": ("1", "2"), "four": ("1", "2", "3", "4")}.items()}
    completion = answers(LinearCandidate("even", features, undecided), ["some words"])[0].completion
    assert completion and completion.confidence == pytest.approx(1 / 8)


def test_rare_words_weigh_more_and_texts_have_one_length() -> None:
    features = TextFeatures.fit(["the cat", "the dog", "the cow"])
    vector = features.of(["the cat", "the the the the dog"]).toarray()
    words = {term: i for i, term in enumerate(features.terms[0])}
    assert vector[0, words["cat"]] > vector[0, words["the"]] > 0
    assert (vector ** 2).sum(axis=1) == pytest.approx([2, 2]), "words and characters count alike"


def test_linear_copies_what_it_never_saw_and_no_decoys(tmp_path: Path) -> None:
    candidate = taught("linear", RECORDS, tmp_path)
    for text, wanted in [("where is K-90807. regards. PO 123456", "K-90807"), ("refund INV0007 please", "INV0007"),
                         ("new user please. by tonight. firmware 4.771234.1", None)]:
        assert json.loads(answers(candidate, [text])[0].answer)["reference"] == wanted


def test_linear_copies_amounts_as_numbers(tmp_path: Path) -> None:
    def row(i: int) -> tuple[str, dict[str, object]]:
        amount, kind = 3 * i + 1.5, "debit" if i % 2 else "credit"
        return f"{kind} of {amount} EUR on day {i % 28}", {"amount": amount, "kind": kind}

    candidate = taught("linear", task_of([row(i) for i in range(60)]), tmp_path)
    answer = answers(candidate, ["debit of 777.5 EUR on day 3"])[0].answer
    assert json.loads(answer) == {"amount": 777.5, "kind": "debit"}


def test_linear_leaves_out_fields_that_records_lack(tmp_path: Path) -> None:
    pairs = [("call me back", {"kind": "call"}), ("mail me", {"kind": "mail", "soon": True})] * 10
    candidate = taught("linear", task_of(pairs), tmp_path)
    assert [json.loads(one.answer) for one in answers(candidate, ["call me back", "mail me"])] == [
        {"kind": "call"}, {"kind": "mail", "soon": True}]


@pytest.mark.parametrize("task", [task_of([("a", "one text"), ("b", "another")]),
                                  task_of([(f"a {i}", {"summary": f"text {i}"}) for i in range(20)])])
def test_linear_needs_a_closed_set(task: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="linear needs a closed set of labels"):
        taught("linear", task, tmp_path)


def test_linear_learns_one_label_and_without_dev(tmp_path: Path) -> None:
    one = task_of([("a", "x"), ("b", "x")], Output(labels=("x", "y")))
    assert answers(taught("linear", one, tmp_path), ["c"])[0].answer == "x"
    two = task_of([("good", "x"), ("bad", "y")] * 5, Output(labels=("x", "y")))
    assert [rollout.answer for rollout in answers(taught("linear", two, tmp_path), ["good", "bad"])] == ["x", "y"]


def test_linear_never_looks_at_test(tmp_path: Path) -> None:
    blind = replace(RECORDS, splits={**RECORDS.splits, "test": ()})
    texts = [row.text for row in RECORDS.rows("test")]
    one, other = (answers(taught("linear", task, tmp_path), texts) for task in (RECORDS, blind))
    assert [rollout.answer for rollout in one] == [rollout.answer for rollout in other]


def test_constant_takes_the_better_of_record_and_fields_on_dev(tmp_path: Path) -> None:
    records = [{"a": "1", "b": "1"}] * 3 + [{"a": "2", "b": str(i)} for i in range(2, 6)]  # commonest: a=2, b=1
    pairs = [("text", record) for record in records]
    whole = task_of(pairs, dev=[("text", {"a": "1", "b": "1"})])
    fields = task_of(pairs, dev=[("text", {"a": "2", "b": "1"})])
    assert json.loads(answers(taught("constant", whole, tmp_path), ["x"])[0].answer) == {"a": "1", "b": "1"}
    assert json.loads(answers(taught("constant", fields, tmp_path), ["x"])[0].answer) == {"a": "2", "b": "1"}


def test_constant_says_how_often_it_was_right(tmp_path: Path) -> None:
    rollout = answers(taught("constant", task_of([("a", "x"), ("b", "x"), ("c", "y")]), tmp_path), ["d"])[0]
    assert rollout.answer == "x" and rollout.completion and rollout.completion.confidence == pytest.approx(2 / 3)


def test_nearest_gives_back_what_it_saw_and_claims_no_probability(tmp_path: Path) -> None:
    candidate = taught("nearest", RECORDS, tmp_path)
    seen = list({row.text: row for row in RECORDS.rows("train")}.values())[:20]
    for row, rollout in zip(seen, answers(candidate, [row.text for row in seen]), strict=True):
        first = next(other for other in RECORDS.rows("train") if other.text == row.text)
        assert json.loads(rollout.answer) == record(first.target)
        assert rollout.completion and rollout.completion.confidence is None


@pytest.mark.parametrize("name", FLOORS)
def test_rows_without_targets_teach_nothing(name: str, tmp_path: Path) -> None:
    unlabelled = tuple(replace(row, target=None) for row in LABELS.rows("train"))
    with pytest.raises(UserError, match="target"):
        taught(name, replace(LABELS, splits={"train": unlabelled}), tmp_path)
