"""`check` finds what was planted; answers of other systems find their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.toy import ToyPolicy
from posttrain.rollouts import taught
from posttrain.tasks import Finding, lengths
from posttrain.types import Task, UserError

TOML = 'name = "t"\ninstructions = "Say yes or no."\n[output]\nlabels = ["yes", "no", "maybe"]\nmax_tokens = 4\n'
TEXTS = ["the parcel came late again", "my screen went black", "please cancel that order", "who signs the contract",
         "nothing prints since noon", "send an invoice copy", "battery feels very warm", "login code never arrives",
         "thank you, great staff", "does it scan in the dark"]


def task_folder(path: Path, toml: str = TOML, **splits: list[dict[str, Any]]) -> Path:
    path.mkdir()
    (path / "task.toml").write_text(toml)
    for split, rows in splits.items():
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(text: str, target: str = "yes") -> dict[str, Any]:
    return {"input": text, "target": target}


def found(findings: list[Finding], message: str) -> Finding:
    matching = [finding for finding in findings if message in finding.message]
    assert len(matching) == 1, [finding.message for finding in findings]
    return matching[0]


def test_a_clean_task_has_only_notes(tmp_path: Path) -> None:
    path = task_folder(tmp_path / "t", TOML.replace(', "maybe"', ""), train=[row(TEXTS[0]), row(TEXTS[1], "no")],
                       dev=[row(TEXTS[2])], test=[row(TEXTS[3], "no")])
    findings = tasks.check(path)
    assert {finding.level for finding in findings} == {"note"}
    assert found(findings, "2 labels on 2 to 2 rows")
    assert found(findings, "rows: 2 train, 1 dev, 1 test; a test score near 50 % will be known to about ±98 points")


def test_planted_faults_are_found(tmp_path: Path) -> None:
    path = task_folder(
        tmp_path / "t",
        train=[row(TEXTS[0]), row(TEXTS[0].upper() + "!"), row(TEXTS[1], "no"), row(TEXTS[2]), row(TEXTS[4])],
        dev=[row(TEXTS[1], "yes"), row(TEXTS[5])],
        test=[row(TEXTS[2]), row(TEXTS[4] + "s"), row(TEXTS[6])])
    findings = tasks.check(path)
    assert [finding.level for finding in findings] == sorted((finding.level for finding in findings),
                                                             key=["error", "warning", "note"].index)
    leak = found(findings, "1 row of test is in train or dev too")
    assert leak.level == "error" and leak.place == f"{path}/test.jsonl:1"
    assert found(findings, "1 row of dev is in train too").place == f"{path}/dev.jsonl:1"
    near = found(findings, "1 row of test is nearly as one in")
    assert near.level == "warning" and near.place == f"{path}/test.jsonl:2"
    conflict = found(findings, "1 question asked with different answers")
    assert conflict.place == f"{path}/train.jsonl:3, {path}/dev.jsonl:1"
    assert found(findings, "1 duplicate row within a split").place == f"{path}/train.jsonl:2"
    assert found(findings, "1 label with no row in train: maybe").level == "warning"
    assert found(findings, "the instructions do not name 1 label: maybe").level == "note"


def test_graders_that_reward_nothing_or_refuse_gold(tmp_path: Path) -> None:
    toml = 'instructions = "x"\n[grader]\nname = "python"\n[output]\nmax_tokens = 1\n'
    path = task_folder(tmp_path / "t", toml, train=[row(TEXTS[0]), row(TEXTS[1], "a very long answer")],
                       dev=[row(TEXTS[2])])
    (path / "grade.py").write_text("def grade(row, answer):\n    return 0.5 if answer != 'yes' else 1.0\n")
    findings = tasks.check(path)
    assert found(findings, "scores below 1 on 1 row").place == f"{path}/train.jsonl:2"
    assert found(findings, "an empty answer scores above 0 on 3 rows").level == "error"
    assert found(findings, "1 target longer than max_tokens = 1")
    assert found(findings, "no test rows").level == "warning"
    (path / "grade.py").write_text("def grade(row, answer):\n    return answer['x']\n")
    broken = found(tasks.check(path), "the grader fails on 3 rows: TypeError")
    assert (broken.level, broken.place) == ("error", f"{path}/grade.py:2") and f"{path}/train.jsonl:1" in broken.message


def test_check_takes_a_task_too_and_shows_fields(tmp_path: Path) -> None:
    toml = '[grader]\nname = "json"\n'
    rows = [{"input": text, "target": {"queue": "a", "n": n}} for n, text in enumerate(TEXTS)]
    task = tasks.load(task_folder(tmp_path / "t", toml, train=rows[:6], dev=rows[6:8], test=rows[8:]))
    findings = tasks.check(task)
    assert found(findings, "field queue: 1 value, a on 100% of the rows")
    assert found(findings, "field n: 10 values")
    assert found(tasks.check(tasks.load("arithmetic")), "57 train")


def test_everything_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    path = task_folder(tmp_path / "t", 'documents = "nowhere"\n' + TOML, train=[row(text) for text in TEXTS[:4]],
                       test=[row(TEXTS[5], "ja")])
    lines = (path / "train.jsonl").read_text().splitlines()
    (path / "train.jsonl").write_text("\n".join([lines[0], lines[1] + ",", "{", *lines[2:], '{"input": NaN}']) + "\n")
    (path / "dev.jsonl").write_text("")
    findings = tasks.check(path)
    assert [finding.place.removeprefix(f"{path}/") for finding in findings if finding.level == "error"] == [
        "train.jsonl:2", "train.jsonl:3", "train.jsonl:6", "dev.jsonl", "test.jsonl:1", "nowhere"]
    assert not [finding for finding in findings if "no dev rows" in finding.message], "it is told once"
    with pytest.raises(UserError, match=r"not valid JSON.*\(and 5 more"):
        tasks.load(path)
    (path / "train.jsonl").write_text("{\n" * 500)
    errors = [finding for finding in tasks.check(path) if finding.level == "error"]
    assert len(errors) == 21 and "483 more errors" in errors[-1].message


def test_the_same_question_about_other_passages_is_another_question(tmp_path: Path) -> None:
    path = task_folder(tmp_path / "t", train=[{**row(TEXTS[0], answer), "contexts": [context]}
                                              for answer, context in (("yes", "It is open."), ("no", "It is shut."))])
    assert not [finding for finding in tasks.check(path) if "different answers" in finding.message]


def test_lengths_are_approximate_without_a_model_and_exact_with_one(tmp_path: Path) -> None:
    rows = [row("word " * count, "yes") for count in (3, 300, 20)]
    path = task_folder(tmp_path / "t", train=rows, dev=[row("用户" * 100)], test=[row("maybe", "maybe")])
    about = found(tasks.check(path), "inputs: ")
    assert "1,500 characters, about 375 tokens (longest)" in about.message and "at 4 bytes a token" in about.message
    assert lengths.approximate("用户" * 100) == 150
    policy = ToyPolicy.open(["word", "yes", "maybe", "Say", "or", "no"])
    policy.context_length = 400
    findings = tasks.check(path, policy=policy)
    task = tasks.load(path)
    longest = len(PolicyCandidate.of("", policy, task).prompt(task.rows("train")[1]))
    assert f"{longest:,} (longest)" in found(findings, "prompts: ").message
    long = found(findings, "leaves no room")
    assert (long.level, long.place) == ("error", f"{path}/train.jsonl:2, {path}/dev.jsonl:1")
    assert not [finding for finding in findings if "longer than max_tokens" in finding.message]
    policy = ToyPolicy.open()  # spells in bytes: "maybe" and its end are six tokens
    assert found(tasks.check(path, policy=policy), "1 target longer than max_tokens = 4").place == f"{path}/test.jsonl:1"


def test_a_row_too_long_to_be_taught_is_named_by_its_line(tmp_path: Path) -> None:
    path = task_folder(tmp_path / "t", train=[row(TEXTS[0])])
    (path / "train.jsonl").write_text("\n\n" + json.dumps(row("word " * 400)) + "\n")
    task, policy = tasks.load(path), ToyPolicy.open()
    policy.context_length = 100
    with pytest.raises(UserError, match="do not fit") as error:
        taught(PolicyCandidate.of("toy", policy, task), task.rows("train")[0])
    assert error.value.place == f"{path}/train.jsonl:3"


def test_every_row_may_be_wrong(tmp_path: Path) -> None:
    path = task_folder(tmp_path / "t", train=[row(TEXTS[0], "ja")])
    assert "'ja' is not among" in tasks.check(path)[0].message


# --- answers of other systems -------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return tasks.load(task_folder(tmp_path / "task", train=[row(TEXTS[0])], dev=[row(TEXTS[1])],
                                  test=[{**row(text), "id": f"q{n}"} for n, text in enumerate(TEXTS[2:5])]))


def test_answers_by_id(task: Task, tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    file.write_text("id,answer\nq2,no\nq0,\nq1,yes\nq9,yes\n")
    assert tasks.match_answers(task, file) == {"q0": "", "q1": "yes", "q2": "no"}


@pytest.mark.parametrize("make", [
    lambda text, answer: {"input": text, "answer": answer},
    lambda text, answer: {"text": text, "prediction": answer},
    lambda text, answer: {"input": f"  {text}\n", "target": "gold", "answer": answer},
    lambda text, answer: {"user_input": text, "response": answer, "retrieved_contexts": []},
    lambda text, answer: {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": text},
                                       {"role": "assistant", "content": answer}]},
    lambda text, answer: {"request": {"messages": [{"role": "user", "content": text}]},
                          "response": {"choices": [{"message": {"content": answer}}]}},
])
def test_answers_by_input_in_every_shape(task: Task, make: Any, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps(make(text, f"answer {n}")) + "\n" for n, text in enumerate(TEXTS)))
    answers = tasks.match_answers(task, file, splits=("dev", "test"))
    assert answers["q0"] == "answer 2" and answers["dev-1"] == "answer 1" and len(answers) == 5


GOLD = ["Paris", "Rome", "Bern"]


@pytest.mark.parametrize("make", [
    lambda text, answer, gold: {"user_input": text, "response": answer, "reference": gold},
    lambda text, answer, gold: {"question": text, "answer": answer, "ground_truth": gold},
    lambda text, answer, gold: {"input": text, "target": gold, "answer": answer},
    lambda text, answer, gold: {"vars": {"q": text}, "assert": [{"type": "equals", "value": gold}], "answer": answer},
    lambda text, answer, gold: {"request": {"messages": [{"role": "user", "content": text}]}, "target": gold,
                                "response": {"choices": [{"message": {"content": answer}}]}},
    lambda text, answer, _: {"text": text, "prediction": answer},
])
def test_what_is_wanted_is_never_taken_for_an_answer(task: Task, make: Any, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"

    def answers(*said: str | None) -> dict[str, str]:
        lines = [make(text, answer, gold) for text, answer, gold in zip(TEXTS[2:5], said, GOLD, strict=True)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tasks.match_answers(task, file)

    assert answers("", "x", "") == {"q0": "", "q1": "x", "q2": ""}, "an empty answer is an answer"
    assert answers("", "", "") == {"q0": "", "q1": "", "q2": ""}
    assert answers(None, "x", None) == {"q1": "x"}, "of null nothing is known"
    with pytest.raises(UserError, match="no test row has an answer"):
        answers(None, None, None)


@pytest.mark.parametrize(("header", "first"), [("id,input,target,answer", "q0,{},Paris,"), ("input,target,answer", "{},Paris,"),
                                               ("id,answer", "q0,"), ("text,prediction", "{},")])
def test_an_empty_cell_is_an_empty_answer(task: Task, header: str, first: str, tmp_path: Path) -> None:
    file = tmp_path / "said.csv"
    lines = [first.format(TEXTS[2]), *((first + "no").replace("q0", f"q{n}").format(TEXTS[n + 2]) for n in (1, 2))]
    file.write_text("\n".join([header, *lines]) + "\n")
    assert tasks.match_answers(task, file) == {"q0": "", "q1": "no", "q2": "no"}


def test_answers_that_are_missing_are_counted(task: Task, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps({"input": TEXTS[3], "answer": "x"}) + "\n" + json.dumps({"input": "?", "answer": "y"}))
    with pytest.raises(UserError, match=r"2 of 3 test rows have no answer, such as q0; 1 of its 2 answers") as error:
        tasks.match_answers(task, file)
    assert error.value.remedy
    file.write_text("".join(json.dumps({"input": TEXTS[3], "answer": answer}) + "\n" for answer in "xy"))
    with pytest.raises(UserError, match="second, different answer") as error:
        tasks.match_answers(task, file)
    assert error.value.place == f"{file}:2"


def test_rows_to_predict_need_no_target(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("when,text\n1,hello\n2,world\n")
    assert [(one.id, one.text, one.target) for one in tasks.read_rows(file)] == [("row-1", "hello", None),
                                                                                ("row-2", "world", None)]
    assert [one.text for one in tasks.read_rows(file, input="when")] == ["1", "2"]
    file = tmp_path / "new.jsonl"
    file.write_text('{"input": "a"}\n{"messages": [{"role": "user", "content": "b"}]}\n')
    assert [one.text for one in tasks.read_rows(file)] == ["a", "b"]
    file.write_text('{"input": "a"}\n{"input": ""}\n')
    with pytest.raises(UserError, match="no input") as error:
        tasks.read_rows(file)
    assert error.value.place == f"{file}:2"
