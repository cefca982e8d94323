"""Bad input: exit code 2, what is wrong, where, and what to do about it; never a traceback, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Said, Shell

TASK = Path("tasks/tickets")
BROKEN_GRADERS = {
    "raises": "def grade(row, answer):\n    raise ValueError('the grader is broken')\n",
    "exits": "import sys\ndef grade(row, answer):\n    sys.exit('the grader is broken')\n",
}


def refused(said: Said, *parts: str) -> None:
    assert said.code == 2, f"code {said.code}\n{said.out}\n{said.err}"
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err


def test_malformed_jsonl(shell: Shell) -> None:
    Path("bad.jsonl").write_text('{"input": "a", "target": "b"}\n{"input": oops}\n')
    refused(shell("init", "bad.jsonl"), "bad.jsonl:2", "not valid JSON", "each line is one JSON object")
    refused(shell("compare", "bad.jsonl"), "bad.jsonl:2")
    assert not Path("tasks").exists()
    assert not Path("runs").exists()


def test_a_missing_column(shell: Shell) -> None:
    said = shell("init", "tickets.csv", "--input", "mesage", "--target", "queue")
    refused(said, "tickets.csv:2", "no column 'mesage'", "did you mean 'message'?")


def test_columns_that_cannot_be_told_are_listed(shell: Shell) -> None:
    Path("plain.csv").write_text("one,two,three\n" + "".join(f"a{n},b{n},c{n}\n" for n in range(9)))
    said = shell("compare", "plain.csv", "--candidates", "nearest")
    refused(said, "plain.csv:2", "cannot tell which column is asked", "say --input COLUMN", "columns: one, two, three")
    assert not Path("tasks").exists()


def test_a_column_that_task_toml_names_and_the_file_lacks(shell: Shell) -> None:
    shell("init", "tickets.csv")
    Path("tickets.csv").rename(TASK / "tickets.csv")
    columns = 'test = { file = "tickets.csv", input = "message", target = "qeue" }'
    change("task.toml", lambda text: f"{text}\n[splits]\n{columns}\n")
    refused(shell("compare", str(TASK), "--candidates", "nearest"), "tickets.csv:2", "no column 'qeue'", "'queue'?")


def change(name: str, edit: Callable[[str], str]) -> None:
    path = TASK / name
    path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_an_empty_split(shell: Shell) -> None:
    shell("init", "tickets.csv")
    (TASK / "test.jsonl").unlink()
    refused(shell("compare", str(TASK), "--candidates", "nearest"), str(TASK), "no test rows", "add test.jsonl")
    assert not Path("runs").exists()


def test_a_label_outside_the_set(shell: Shell) -> None:
    shell("init", "tickets.csv")
    lines = (TASK / "train.jsonl").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "target": "biling"})
    change("train.jsonl", lambda _: "\n".join(lines) + "\n")
    said = shell("compare", str(TASK), "--candidates", "nearest")
    refused(said, "train.jsonl:3", "'biling' is not among [output] labels", "did you mean 'billing'?")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("compare", "tickets.csv", "--candidates", "lineer"), ("no technique called 'lineer'", "'linear'")),
        (("compare", "tickets.csv", "--candidates", "nearest", "--model", "./nowhere"), ("--model", "no candidate needs")),
        (("compare", "tickets.csv", "--candidates", "nearest", "--price-input", "2", "--price-output", "8"),
         ("--price-input --price-output", "no endpoint is compared")),
        (("compare", "--candidates", "nearest", "--target", "queue"), ("--target", "for a file of examples")),
        (("compare", "tickets.csv", "--candidates", "constant,nearest", "--answers", "nearest=tickets.csv"),
         ("--answers", "'nearest' is what a technique's")),
        (("compare", "tickets.csv", "--candidates", "nearest,linear+sft"), ("linear+sft", "linear is a floor", "by itself")),
        (("teach", "base+nearest", "tickets.csv"), ("base+nearest", "nearest is a floor")),
        (("teach", "stf", "tickets.csv"), ("no technique called 'stf'", "'sft'")),
        (("compare", "tasks/tickts"), ("no task 'tasks/tickts'", "known: arithmetic")),
        (("check", "arithmetik"), ("no task 'arithmetik'", "did you mean 'arithmetic'?")),
        (("show", "yesterday"), ("no run called 'yesterday'", "posttrain compare")),
        (("predict", "latest", "new.csv"), ("no run called 'latest'", "posttrain compare")),
        (("evaluate", "./nowhere", "tickets.csv"), ("./nowhere", "give a")),
        (("compare", "tickets.csv", "--candidates", "base", "--model", "empty"), ("empty", "it has no config.json")),
        (("compare", "tickets.csv", "--model", "chat:localhost"), ("chat:localhost", "write chat:URL#NAME")),
        (("compare", "nothing.csv"), ("nothing.csv",)),
        (("compare",), ("nothing to compare", "posttrain compare tickets.csv")),
        (("compare", "tickets.csv", "--answers", "ours.jsonl"), ("--answers", "NAME=VALUE")),
        (("compare", "tickets.csv", "--candidates", "nearest", "--runs", "new.csv"), ("new.csv", "--runs")),
        (("teach", "sft", "tickets.csv", "--set", "lr=1"), ("--set", "no setting 'lr'", "learning_rate")),
        (("export", "latest", "--to", "onnx"), ("no export called 'onnx'", "merged, peft")),
        (("compare", "tickets.csv", "--minutes", "soon"), ("--minutes",)),
        (("compare", "tickets.csv", "--candidates", "nearest", "--volume", "inf"), ("--volume", "no number of requests")),
        (("compare", "tickets.csv", "--candidates", "nearest", "--volume", "nan"), ("--volume",)),
        (("compare", "tickets.csv", "--candidates", "nearest", "--volume", "-5"), ("--volume",)),
        (("compare", "tickets.csv", "--candidates", "nearest", "--price-per-hour", "inf"), ("--price-per-hour", "no amount")),
        (("compare", "tickets.csv", "--candidates", "nearest", "--price-per-hour", "-2"), ("--price-per-hour",)),
        (("compare", "tickets.csv", "--minits", "3"), ("--minits",)),
        (("compair", "tickets.csv"), ("compair", "posttrain --help")),
    ],
    ids=lambda value: " ".join(value)[:50],
)
def test_what_is_unknown_is_named(arguments: tuple[str, ...], parts: tuple[str, ...], shell: Shell) -> None:
    Path("empty").mkdir()
    refused(shell(*arguments), *parts)


def test_a_refused_comparison_leaves_no_run_behind(shell: Shell) -> None:
    shell("compare", "tickets.csv", "--candidates", "nearest")
    shell("compare", "tickets.csv", "--candidates", "lineer")
    assert shell("show", "latest").code == 0


@pytest.mark.parametrize(
    ("how", "candidates"), [("raises", "nearest"), ("raises", "constant,nearest"), ("exits", "nearest")]
)
def test_a_grader_that_raises(how: str, candidates: str, shell: Shell) -> None:
    shell("init", "tickets.csv", "--grader", "choice")
    change("task.toml", lambda text: text.replace('name = "choice"', 'name = "python"'))
    (TASK / "grade.py").write_text(BROKEN_GRADERS[how])
    checked = shell("check", str(TASK))
    assert checked.code == 1
    assert "the grader fails on 90 rows" in checked.out
    refused(shell("compare", str(TASK), "--candidates", candidates), "the grader is broken", "posttrain check")


def test_a_grader_that_cannot_be_loaded(shell: Shell) -> None:
    shell("init", "tickets.csv")
    change("task.toml", lambda text: text.replace('name = "choice"', 'name = "python"'))
    (TASK / "grade.py").write_text("import nothing_of_that_name\n")
    refused(shell("check", str(TASK)), "grade.py", "nothing_of_that_name", "mend the file")


def test_a_row_longer_than_the_context(shell: Shell, tiny_model_folder: Path) -> None:
    shell("init", "tickets.csv")
    lines = (TASK / "train.jsonl").read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "input": "the printer is down and the parcel is late " * 200})
    change("train.jsonl", lambda _: "\n".join(lines) + "\n")
    said = shell("teach", "sft", str(TASK), "--model", str(tiny_model_folder))
    refused(said, "train.jsonl:2", "do not fit into the model's 512", "shorten or leave out the row")


def test_with_json_the_error_is_a_document_too(shell: Shell) -> None:
    said = shell("show", "yesterday", "--json")
    assert said.code == 2
    assert said.document["error"]["message"] == "no run called 'yesterday'"


def test_a_test_row_longer_than_the_context_fails_alone_and_is_named(shell: Shell, tiny_model_folder: Path) -> None:
    shell("init", "tickets.csv", "--grader", "exact")
    rows = (TASK / "test.jsonl").read_text().splitlines()
    long = {**json.loads(rows[2]), "input": "printer " * 2000}
    (TASK / "test.jsonl").write_text("\n".join([*rows[:2], json.dumps(long), *rows[3:]]) + "\n")
    said = shell("compare", str(TASK), "--candidates", "constant,base", "--model", str(tiny_model_folder), "--json")
    attempts = [json.loads(line) for line in next(Path(said.document["run"]).glob("**/base*/test.jsonl")).read_text().splitlines()]
    errors = [attempt.get("error") for attempt in attempts if attempt.get("error")]
    assert len(errors) == 1 and "leaves no room in the context of 512; shorten or leave out" in errors[0]
    assert errors[0].endswith("test.jsonl:3")


def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(shell: Shell, tiny_model_folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("posttrain")), "compare", "tickets.csv", "--candidates",
               "nearest,base,best_of", "--model", str(tiny_model_folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as comparing:
        assert comparing.stdout is not None
        for line in comparing.stdout:
            if line.startswith("nearest "):
                comparing.send_signal(signal.SIGINT)
        _, err = comparing.communicate(timeout=60)
    assert comparing.returncode == 130, err
    (run,) = Path("runs").glob("*-compare")
    assert f"posttrain compare --resume {run}" in err
    assert "Stopped." in (run / "log.txt").read_text()
    assert "Traceback" not in err
    (finished,) = Path("runs").glob("*/candidates/*/saved/candidate.json")
    before = finished.stat().st_mtime_ns

    assert shell("show", "latest").code == 2  # there is no verdict yet
    resumed = shell("compare", "--resume", "latest", "--json").document
    assert {one["name"] for one in resumed["candidates"]} == {"nearest", "base", "best_of"}
    assert finished.stat().st_mtime_ns == before
