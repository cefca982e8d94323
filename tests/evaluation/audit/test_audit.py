"""Graders that can be paid without doing the task are told from those that cannot."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from posttrain import graders
from posttrain.evaluation.audit import Audit, Verdict, audit
from posttrain.evaluation.audit import grading as watched
from posttrain.evaluation.audit.auditing import parted
from posttrain.evaluation.audit.forms import SLOT, emptied, fitting, frames, items, shell
from posttrain.evaluation.audit.mining import examples, expressions, literals, names
from posttrain.evaluation.audit.verdicts import Yardstick, bounds, word
from posttrain.types import Message, Output, Row, Score, Task, UserError

CITIES = ("Lagos", "Lima", "Oslo", "Quito", "Turin", "Perth", "Kyoto", "Dakar", "Hanoi", "Minsk", "Cairo", "Tunis")


class Grading:
    """A grader that is a function."""

    def __init__(self, reward: Callable[[Row, str], float]) -> None:
        self.reward = reward
        self.source = ""

    async def grade(self, row: Row, answer: str) -> Score:
        value = self.reward(row, answer)
        return Score(value, value >= 1)


def task(grader: Any, golds: list[str] | None = None, output: Output = Output()) -> Task:
    """Sixty rows, each of which names what is wanted among other things."""
    golds = golds or [f"{CITIES[i % 12]} {i}" for i in range(60)]
    rows = tuple(Row(f"r{i}", (Message("user", f"Where did train {i} go?"),), gold) for i, gold in enumerate(golds))
    return Task("trains", "1", "", "", {"train": rows}, grader, output)


def audited(reward: Callable[[Row, str], float], **named: Any) -> Audit:
    return asyncio.run(audit(task(Grading(reward), **named)))


def worst(found: Audit) -> dict[str, str]:
    return {verdict.probe: verdict.word for verdict in found.verdicts if verdict.word != "RESISTED"}


def exact(row: Row, answer: str) -> float:
    return float(answer.strip() == row.target)


def test_a_sound_grader_resists_everything() -> None:
    found = audited(exact)
    assert worst(found) == {} and not found.fooled and not found.faults
    assert found.yardstick.gold == 1 and found.yardstick.chance == pytest.approx(1 / 60)


@pytest.mark.parametrize(
    ("fault", "probe"),
    [
        (lambda _, answer: float(bool(answer)), "nothing"),
        (lambda row, answer: float(exact(row, answer) or answer == "{}"), "empty value"),
        (lambda row, answer: float(exact(row, answer) or "correct" in answer), "empty phrase"),
        (lambda row, answer: float(answer in row.text or exact(row, answer)), "echo"),
        (lambda _, answer: float(any(city in answer for city in CITIES)), "another row's answer"),
        (lambda row, answer: 0.9 if answer.startswith("<answer>") else exact(row, answer), "format"),
        (lambda row, answer: float(any(number == (row.target or "").split()[1] for number in answer.split())), "list"),
    ],
)
def test_a_fault_is_found(fault: Callable[[Row, str], float], probe: str) -> None:
    found = audited(fault)
    assert worst(found)[probe] == "FOOLED" and found.fooled
    (verdict,) = [each for each in found.verdicts if each.probe == probe]
    assert verdict.earned >= 0.9 and verdict.rows >= 8
    by_id = {row.id: row for row in task(None).rows("train")}
    assert fault(by_id[verdict.row], verdict.answer) >= 0.9, "the answer that is shown is one that was paid"


def test_who_knows_the_answer_is_warned_of_at_most() -> None:
    found = audited(lambda row, answer: float(str(row.target) in answer))
    assert worst(found) == {"stuffing": "WARN", "padding": "WARN"}


def test_chance_is_no_fault() -> None:
    golds = ["yes"] * 40 + ["no"] * 20
    found = audited(exact, golds=golds, output=Output(labels=("yes", "no")))
    assert found.yardstick.chance == pytest.approx(2 / 3) and not found.fooled


def test_a_list_of_labels_is_known_without_the_answer() -> None:
    golds = ["red", "green", "blue"] * 20
    found = audited(lambda row, answer: float(str(row.target) in answer), golds=golds, output=Output(labels=("red", "green", "blue")))
    assert worst(found)["list"] == "FOOLED"


def test_a_grader_that_fails_is_told_with_the_answer_and_the_reason() -> None:
    def number(row: Row, answer: str) -> float:
        return float(int(answer) == int((row.target or "").split()[1]))

    found = audited(number, golds=[f"train {997 * i % 1000 + 100}" for i in range(60)])
    assert worst(found)["nothing"] == "CRASH" and not found.fooled
    verdict = found.verdicts[0]
    assert verdict.reason.startswith("ValueError: invalid literal") and verdict.answer == "" and verdict.row
    assert found.faults[0].kind == "fails"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1.5])
def test_what_is_no_reward_is_a_failure(value: float) -> None:
    found = audited(lambda row, answer: value if answer == "banana" else exact(row, answer))
    assert worst(found) == {"empty phrase": "CRASH"}
    assert "not a number from 0 to 1" in next(each.reason for each in found.verdicts if each.word == "CRASH")


def test_a_grader_that_hangs_is_stopped_even_if_it_catches_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LONGEST_SECONDS", 0.5)

    def hangs(row: Row, answer: str) -> float:
        try:
            while answer == "banana":
                pass
        except Exception:
            return 1.0
        return exact(row, answer)

    found = audited(hangs)
    assert worst(found) == {"empty phrase": "CRASH"}
    assert "more than 0.5 seconds" in next(each.reason for each in found.verdicts if each.word == "CRASH")


def test_what_is_unsound_beside_what_it_pays() -> None:
    seen: list[str] = []

    def unsteady(row: Row, answer: str) -> float:
        seen.append(answer)
        return exact(row, answer) if seen.count(answer) < 3 else 0.5 * exact(row, answer)

    assert [fault.kind for fault in audited(unsteady).faults] == ["unsteady"]
    stingy = audited(lambda row, answer: 0.8 * exact(row, answer))
    assert [fault.kind for fault in stingy.faults] == ["gold"] and len(stingy.faults[0].rows) == 60
    assert stingy.yardstick.gold == pytest.approx(0.8) and not stingy.fooled


def test_the_line_that_pays_is_named(tmp_path: Path) -> None:
    grade = 'def grade(row, answer):\n    """Pays."""\n    if "please" in answer:\n        return 1.0\n    return answer == row.target\n'
    (tmp_path / "grade.py").write_text(grade)
    found = asyncio.run(audit(task(graders.load("python", {}, tmp_path))))
    assert worst(found) == {"source": "FOOLED"}
    (verdict,) = [each for each in found.verdicts if each.word == "FOOLED"]
    assert verdict.answer == "please" and verdict.place == f"{tmp_path / 'grade.py'}:4"


def test_a_grader_may_have_modules_beside_it_and_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "gold.py").write_text("def grade(row, answer):\n    return 1.0\n")
    (tmp_path / "t" / "grade.py").write_text(
        'def grade(row, answer):\n    if answer == "please":\n        return 1.0\n    return answer == row.target\n')
    monkeypatch.chdir(tmp_path)
    found = asyncio.run(audit(task(graders.load("python", {}, Path("t")))))
    (verdict,) = [each for each in found.verdicts if each.word == "FOOLED"]
    assert verdict.probe == "source" and verdict.place == f"{Path('t') / 'grade.py'}:3"


def test_an_answer_that_ends_the_process_is_a_failure_of_the_grader() -> None:
    def runs(row: Row, answer: str) -> float:
        if "_exit" in answer or "SystemExit" in answer:
            exec(answer)
        return exact(row, answer)

    found = audited(runs)
    assert worst(found) == {"program": "CRASH"}
    assert next(each.reason for each in found.verdicts if each.word == "CRASH").startswith("SystemExit")


def test_what_a_grader_waits_for_is_not_what_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LONGEST_SECONDS", 0.5)

    class Waiting:
        source = ""

        async def grade(self, row: Row, answer: str) -> Score:
            await asyncio.sleep(0.7 if answer == "yes" else 0)
            while answer == "banana":
                await asyncio.sleep(0.01)
            return Score(exact(row, answer), True)

    monkeypatch.setattr(watched, "LONGEST_WAIT", 3.0)
    found = asyncio.run(audit(task(Waiting())))
    assert worst(found) == {"empty phrase": "CRASH"}, "it never answers; that it waits is no failure"


def test_a_grader_that_fails_now_and_then_is_fooled_all_the_same() -> None:
    def pays(row: Row, _: str) -> float:
        if int(row.id[1:]) % 10 == 3:
            raise ValueError("now and then")
        return 1.0

    found = audited(pays)
    assert found.fooled and worst(found)["empty phrase"] == "FOOLED"


def test_a_grader_that_pays_for_the_wrong_thing_is_fooled() -> None:
    found = audited(lambda row, answer: 1.0 - exact(row, answer))
    assert found.fooled and [fault.kind for fault in found.faults] == ["gold"]


def test_half_characters_can_be_written_down() -> None:
    def encodes(row: Row, answer: str) -> float:
        answer.encode()
        return exact(row, answer)

    found = audited(encodes)
    assert worst(found) == {"odd text": "CRASH"}
    assert all(each.answer.encode() and each.reason.encode() for each in found.verdicts if each.word == "CRASH")


@pytest.mark.parametrize("count", [12, 20, 42, 60, 64])
def test_no_row_has_two_uses(count: int) -> None:
    rows = task(Grading(exact)).rows("train") * 2
    asked, judged, known = parted(rows[:count])
    assert len(asked) + len(judged) + len(known) == count and min(map(len, (asked, judged, known))) >= 3
    assert parted(rows[:5]) == (rows[:5],) * 3


def test_a_task_without_rows_is_refused() -> None:
    with pytest.raises(UserError, match="without rows"):
        asyncio.run(audit(Task("none", "1", "", "", {}, Grading(exact), Output())))


def test_few_rows_and_none_with_an_answer() -> None:
    rows = tuple(Row(f"r{i}", (Message("user", f"Write {i}"),)) for i in range(5))
    found = asyncio.run(audit(Task("few", "1", "", "", {"train": rows}, Grading(lambda _, answer: float(len(answer) > 20)), Output())))
    assert found.assumed and found.fooled and found.rows == 5


def test_intervals_are_wilsons() -> None:
    for passed, n in ((0, 10), (3, 10), (10, 10), (7, 40)):
        wanted = binomtest(passed, n).proportion_ci(method="wilson")
        assert bounds([1.0] * passed + [0.0] * (n - passed)) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert bounds([]) == (0.0, 1.0)
    assert bounds([0.5] * 10) == pytest.approx(bounds([1.0, 0.0] * 5)), "graded rewards vary no more than a coin"


@pytest.mark.parametrize(
    ("rewards", "wanted"),
    [
        ([1.0] * 40, "FOOLED"),
        ([0.9] * 40, "FOOLED"),
        ([0.0] * 40, "RESISTED"),
        ([1.0, 0.0, 0.0, 0.0, 0.0] * 8, "RESISTED"),  # as chance has it
        ([0.6] * 40, "WARN"),
        ([1.0] * 3, "WARN"),  # too few to be sure
    ],
)
def test_the_rule(rewards: list[float], wanted: str) -> None:
    assert word(rewards, Yardstick(1.0, 0.2), 4, knows_gold=False) == wanted
    assert word(rewards, Yardstick(1.0, 0.2), 4, knows_gold=True) == ("WARN" if wanted == "FOOLED" else wanted)


def test_what_can_be_mined() -> None:
    source = 'def grade(row, answer):\n    """Judges."""\n    return "because" in answer or f"so {row.id}" in answer\n'
    assert literals(source) == ["because", "so "] and literals("not python (") == []
    shown = examples(["Give `a, b`. Example: x", "Give `a, b`.\nAnswer in this format: y z"])
    assert shown[0] == "a, b" and {"x", "y z"} <= {*shown}
    assert "6+6+6+6" in expressions(24) and all(eval(text) == 24 for text in expressions(24))
    assert {"row", "answer", "row.id"} <= {*names(source)}
    assert shell("[[0,12],['ab']]", "x") == "[[x,x],['x']]"
    assert frames(["12 km", "so\n#### 7.5 km", "3 km"])[:2] == [f"{SLOT} km", f"#### {SLOT} km"]
    assert fitting(["_ km", "_ kg"], "How heavy in kg?") == "_ kg" and fitting(["_ km", "_ kg"], "?") == "_ km"
    assert items("Sort these words: pear, fig, apple") == ["pear", "fig", "apple"]
    assert "[]" in emptied(['["a", "b"]']) and '{"a": null, "b": null}' in emptied(['{"a": 1, "b": "x"}'])


def test_a_verdict_is_a_record() -> None:
    assert json.loads(json.dumps(vars(Verdict("a", "b", "WARN"))))["word"] == "WARN"
