"""The system that runs already: compared when it has answered a test row, and what it did not answer is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import posttrain
from posttrain.api import comparing

FLOORS = ["constant", "nearest"]


def logged(blank_every: int) -> None:
    """logged.csv: tickets.csv with what a system said, the right answer or nothing."""
    with Path("tickets.csv").open(newline="") as file, Path("logged.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(("message", "queue", "answer"))
        for n, row in enumerate(csv.DictReader(file)):
            table.writerow((row["message"], row["queue"], row["queue"] if n % blank_every else ""))


def test_a_system_that_did_not_answer_every_row_is_compared_all_the_same() -> None:
    logged(blank_every=4)
    task = posttrain.init("logged.csv")
    blank = [row for row in task.rows("test") if row.answer is None]
    assert blank and len(blank) < len(task.rows("test"))
    result = posttrain.compare(task, candidates=FLOORS)
    yours = result.candidate("yours")
    assert yours.score == pytest.approx(1 - len(blank) / yours.evaluation.n) and result.reference == "yours"
    assert {one.row_id for one in yours.evaluation.attempts if one.error} == {row.id for row in blank}
    count = f"{len(blank)} of {len(task.rows('test'))} test rows"
    said = f"yours: no answer to {count} (first: {blank[0].id}), which count as not right"
    assert said in result.notes and said in comparing.question(task).task.notes


def test_a_null_in_a_file_of_answers_is_a_failure_and_is_said() -> None:
    task = posttrain.init("tickets.csv")
    lines = [{"id": row.id, "input": row.text, "answer": row.target} for row in task.rows("test")]
    lines[0]["answer"] = None
    lines[1]["answer"] = ""
    Path("ours.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = posttrain.compare(task, candidates=FLOORS, answers={"ours": "ours.jsonl"})
    ours = result.candidate("ours").evaluation
    assert [(bool(one.error), one.passed) for one in ours.attempts[:3]] == [(True, False), (False, False), (False, True)]
    assert any(note.startswith(f"ours: no answer to 1 of {ours.n} test rows") for note in result.notes)


def test_where_nothing_was_logged_nothing_is_said() -> None:
    asked = comparing.question("tickets.csv")
    assert not asked.given and not any("no answer to" in note for note in asked.task.notes)
