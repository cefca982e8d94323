"""posttrain audit: its table, its exit code, its document, and rollouts that are graded again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from command_line import Shell

from posttrain import tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.toy import ToyPolicy
from posttrain.runs import Run, write_json
from posttrain.techniques import grpo

GRADE = """
def grade(row, answer):
    if answer[:1].isalpha():
        return 1.0
    return float(answer == row.target)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    task = tmp_path / "t"
    task.mkdir()
    for split, count in (("train", 24), ("dev", 8), ("test", 8)):
        rows = [{"input": f"What is {i} and {split}?", "target": f"{997 * i % 1000} [x]"} for i in range(count)]
        (task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task / "task.toml").write_text('[grader]\nname = "python"\n[output]\nmax_tokens = 3\n')
    (task / "grade.py").write_text(GRADE)
    return task


def test_what_fooled_it_is_shown_with_the_line_that_paid(folder: Path, shell: Shell) -> None:
    said = shell("audit", "t")
    assert said.code == 1 and "FOOLED" in said.out and "t/grade.py:4" in said.out.replace("\n", "")
    document = shell("audit", "t", "--json")
    assert document.code == 1 and not document.document["ok"]
    (one,) = document.document["audits"]
    assert one["fooled"] and {"probe", "word", "answer", "interval", "place"} <= set(one["verdicts"][0])
    (folder / "grade.py").write_text("def grade(row, answer):\n    return answer == row.target\n")
    assert shell("audit", "t").code == 0 and "RESISTED" in shell("audit", "t").out
    both = shell("audit", "t", "arithmetic", "--processes", "1")
    assert both.code == 0 and "arithmetic" in both.out


def test_rollouts_are_graded_again_by_the_mended_grader(folder: Path, tmp_path: Path, shell: Shell) -> None:
    task = tasks.load("t")
    run = tmp_path / "runs" / "one"
    start = PolicyCandidate("toy", "prompt", ToyPolicy.open(["What is it and train?"]), "", task.output)
    config = grpo.Config(steps=3, rows_per_step=8, learning_rate=3e-2, rollouts_every=2, fooled="warn", evaluate_every=2)
    asyncio.run(grpo.teach(start, task, Run(run / "teaching" / "grpo"), config))
    write_json(run / "config.json", {"schema": 1, "kind": "teach", "task_hash": task.hash})
    (folder / "grade.py").write_text("def grade(row, answer):\n    return answer == row.target\n")
    said = shell("audit", "t", "--rollouts", str(run))
    assert said.code == 0 and "paid then" in said.out and "0.00 now" in said.out and "now 0.00" in said.out
    document = shell("audit", "t", "--rollouts", str(run), "--json").document
    assert [step["step"] for step in document["steps"]] == [0, 2] and document["steps"][0]["after"] == 0
    assert shell("audit", "t", "arithmetic", "--rollouts", str(run)).code == 2
