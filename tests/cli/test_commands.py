"""The command line as a person and as a program meets it: help, one JSON document, the way from a file to answers."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Shell

from posttrain.candidates.linear import LinearCandidate
from posttrain.cli.main import app

GROUP = typer.main.get_command(app)
COMMANDS = [name for name, command in GROUP.commands.items() if not command.hidden]
FLOORS = ("--candidates", "constant,nearest,linear")


def test_the_commands_are_those_of_the_issue() -> None:
    assert set(COMMANDS) == {
        "compare", "teach", "evaluate", "check", "predict", "init", "chat", "serve", "export", "show", "clean", "audit",
        "keys"
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_the_command_understands(name: str, shell: Shell) -> None:
    assert "Example" in shell(name, "--help").out
    command = GROUP.commands[name]
    examples = re.findall(rf"posttrain {name} (.*)", command.help)
    assert examples
    for example in examples:
        command.make_context(name, shlex.split(example))  # raises for an option there is not


def test_without_a_command_there_is_help(shell: Shell) -> None:
    assert "posttrain compare FILE" in shell("--help").out


def test_train_says_that_it_is_called_teach(shell: Shell) -> None:
    done = shell("train", "sft", "tickets.csv", "--epochs", "3")
    assert done.code == 2
    assert "use teach" in done.err


def test_from_a_table_to_answers(shell: Shell) -> None:
    made = shell("init", "tickets.csv")
    assert made.code == 0
    assert "asked: column message; wanted: column queue" in made.out
    assert "posttrain compare tasks/tickets" in made.out

    assert "nothing has to be mended" in shell("check", "tasks/tickets").out

    compared = shell("compare", "tasks/tickets", "--candidates", "constant,linear")
    assert compared.code == 0, compared.err
    for part in ("constant", "linear", "A floor wins", "cannot tell differences below", "report.html"):
        assert part in compared.out
    assert len([line for line in compared.out.split("next:")[1].splitlines() if "posttrain" in line]) == 3

    shown = shell("show")
    assert "A floor wins" in shown.out
    assert "adjusted" in shell("show", "latest", "--all").out

    predicted = shell("predict", "latest", "new.csv", "--output", "answers.csv")
    assert predicted.code == 0, predicted.err
    with Path("answers.csv").open(encoding="utf-8", newline="") as file:
        answers = list(csv.DictReader(file))
    assert [row["answer"] for row in answers] == ["shipping", "account"]
    assert all(0 < float(row["confidence"]) <= 1 for row in answers)

    removed = shell("clean", "--keep", "0", "--yes")
    assert "removed 1 runs" in removed.out
    assert not list(Path("runs").glob("*/"))


def test_a_task_scored_by_grade_is_told_by_grade_from_first_to_last(shell: Shell) -> None:
    shell("init", "tickets.csv")
    settings = Path("tasks/tickets/task.toml")
    text, grader = settings.read_text(encoding="utf-8"), '[grader]\nname = "similarity"\n'
    rest = re.sub(r"\[grader\]\n(?:[^\[].*\n|\n)*", grader + "\n", text)
    assert rest != text
    settings.write_text('scored_by = "grade"\n' + rest, encoding="utf-8")
    compared = shell("compare", "tasks/tickets", "--candidates", "constant,nearest")
    assert compared.code == 0, compared.err
    for part in ("grader: similarity, the mean grade is compared", "grade", "a mean grade of", "wanted"):
        assert part in compared.out
    assert "✓" not in compared.out and "right" not in compared.out.partition("next:")[0].lower()
    report = shell("show", "latest", "--json").document
    assert report["scored_by"] == "grade" and {one["test"] for one in report["comparisons"]} == {"paired bootstrap, Holm"}
    constant = next(one for one in report["candidates"] if one["name"] == "constant")
    assert 0 < constant["score"] < 1 and constant["interval"][0] < constant["score"] < constant["interval"][1]
    again = shell("evaluate", "latest", "tasks/tickets", "--split", "test", "--json").document
    assert (again["scored_by"], again["score"]) == ("grade", 1.0)
    page = next(Path("runs").glob("*/report.html")).read_text(encoding="utf-8")
    assert "better by<select" in page and "right by<select" not in page


def test_predict_abstains_below_the_threshold(shell: Shell) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant")
    sure, unsure = (
        shell("predict", "latest", "new.csv", "--threshold", level, "--json").document for level in ("0.1", "0.9")
    )
    assert not any(one["abstained"] for one in sure["predictions"])
    assert all(one["abstained"] for one in unsure["predictions"])


def test_a_threshold_is_refused_where_nobody_knows_a_confidence(shell: Shell) -> None:
    shell("compare", "tickets.csv", "--candidates", "nearest")
    said = shell("predict", "latest", "new.csv", "--threshold", "0.5")
    assert said.code == 2 and "nearest knows no confidence" in said.err and "leave it out" in said.err
    assert shell("predict", "latest", "new.csv").code == 0


def test_a_model_abstains_where_it_is_less_sure_than_asked(shell: Shell, tiny_model_folder: Path) -> None:
    shell("compare", "tickets.csv", "--candidates", "base", "--model", str(tiny_model_folder))
    known = shell("predict", "latest", "new.csv", "--json").document["predictions"]
    low, high = sorted(one["confidence"] for one in known)
    assert 0 < low < high < 1
    between = shell("predict", "latest", "new.csv", "--threshold", str((low + high) / 2), "--json").document["predictions"]
    assert [one["abstained"] for one in between] == [one["confidence"] == low for one in known]


def test_what_predict_has_answered_is_kept_when_it_is_stopped(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,linear")
    answers = Path("answers.csv")
    answers.write_text("older\n")
    assert shell("predict", "nothing", "new.csv", "--output", "answers.csv").code == 2
    assert answers.read_text() == "older\n", "a refused start leaves it alone"
    assert "no such folder" in shell("predict", "latest", "new.csv", "--output", "missing/answers.csv").err
    said = shell("predict", "latest", "new.csv", "--output", "answers.csv", "--json").document["predictions"]
    assert [one["answer"] for one in said] == [row["answer"] for row in csv.DictReader(answers.read_text().splitlines())]

    Path("many.csv").write_text("message\n" + "where is the parcel\n" * 100)
    attempt = LinearCandidate.attempt

    async def stopped(self: LinearCandidate, rows: Any, **named: Any) -> Any:
        if len(rows) < 64:  # the rest
            raise KeyboardInterrupt
        return await attempt(self, rows, **named)

    monkeypatch.setattr(LinearCandidate, "attempt", stopped)
    assert shell("predict", "latest", "many.csv", "--output", "answers.csv").code == 130
    assert len(answers.read_text().splitlines()) == 1 + 64


def test_predict_writes_a_table_to_the_terminal(shell: Shell) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,linear")
    lines = shell("predict", "latest", "new.csv").out.splitlines()
    assert lines[0] == "id,answer,confidence,abstained,error"
    assert [line.split(",")[:2] for line in lines[1:]] == [["row-1", "shipping"], ["row-2", "account"]]
    assert not sys.stdout.closed


def test_compare_with_the_answers_of_the_system_that_runs(shell: Shell) -> None:
    with Path("tickets.csv").open(encoding="utf-8", newline="") as file, Path("ours.jsonl").open("w") as answers:
        for row in csv.DictReader(file):
            answers.write(json.dumps({"input": row["message"], "answer": row["queue"]}) + "\n")
    done = shell("compare", "tickets.csv", "--candidates", "constant", "--answers", "ours=ours.jsonl")
    assert "Keep what you have" in done.out


def test_json_is_one_document_and_nothing_else(shell: Shell) -> None:
    made = shell("init", "tickets.csv", "--json").document
    assert made["splits"].keys() == {"train", "dev", "test"}
    assert shell("check", "tasks/tickets", "--json").document["ok"] is True
    report = shell("compare", "tasks/tickets", *FLOORS, "--json").document
    assert {"schema", "task", "model", "candidates", "comparisons", "recommendation"} <= report.keys()
    assert report["task"]["hash"] == made["hash"]
    shown = shell("show", "--json").document
    assert shown["candidates"] == report["candidates"]
    judged = shell("evaluate", f"{report['run']}/nearest", "tasks/tickets", "--split", "test", "--json").document
    (nearest,) = (one for one in report["candidates"] if one["name"] == "nearest")
    assert (judged["score"], judged["n"]) == (nearest["score"], nearest["n"])
    assert len(shell("predict", report["run"], "new.csv", "--json").document["predictions"]) == 2
    assert len(shell("clean", "--keep", "0", "--yes", "--json").document["removed"]) == 2


def test_json_of_teaching_and_exporting(shell: Shell, tiny_model_folder: Path) -> None:
    taught = shell("teach", "sft", "tickets.csv", "--model", str(tiny_model_folder), "--steps", "3", "--json")
    assert taught.document["split"] == "dev"
    low, high = taught.document["difference"]["interval"]
    assert low <= taught.document["after"] - taught.document["before"] <= high and taught.document["seconds"] > 0
    assert Path(taught.document["run"], "saved", "candidate.json").exists()
    proof = shell("export", "latest", "--to", "merged", "--output", "out", "--json").document
    assert proof["max_difference"] <= proof["tolerance"]
    assert Path("out", "model.safetensors").exists()


def test_a_sweep_keeps_the_best_of_its_rates(shell: Shell, tiny_model_folder: Path) -> None:
    said = shell("teach", "sft", "tickets.csv", "--model", str(tiny_model_folder), "--sweep", "learning_rate=1e-9,1e-2",
                 "--steps", "6", "--json")
    (note,) = said.document["notes"]
    assert "learning_rate=0.01 is kept" in note and "dropped: learning_rate=1e-09" in note


def test_latest_is_a_run_with_a_winner_after_evaluating_it(shell: Shell) -> None:
    shell("compare", "tickets.csv", *FLOORS)
    shell("evaluate", "latest", "tasks/tickets", "--split", "dev")
    assert shell("show", "latest").code == 0
    assert shell("predict", "latest", "new.csv").code == 0


def test_a_look_at_test_is_counted_where_the_runs_are(shell: Shell) -> None:
    shell("compare", "tickets.csv", *FLOORS)
    said = shell("evaluate", "latest", "tasks/tickets", "--split", "test")
    assert "these test rows have been used 2 times in this folder of runs" in said.out


def test_check_ends_with_code_1_when_something_must_be_mended(shell: Shell) -> None:
    shell("init", "tickets.csv")
    train, test = Path("tasks/tickets/train.jsonl"), Path("tasks/tickets/test.jsonl")
    test.write_text(test.read_text() + train.read_text().splitlines()[0] + "\n")
    done = shell("check", "tasks/tickets")
    assert "in train or dev too" in done.out
    assert done.code == 1


def test_check_counts_in_the_tokens_of_a_model(shell: Shell, tiny_model_folder: Path) -> None:
    shell("init", "tickets.csv")
    done = shell("check", "tasks/tickets", "--model", str(tiny_model_folder))
    assert done.code == 0 and "(longest)" in done.out and "bytes a token" not in done.out
    settings = Path("tasks/tickets/task.toml")
    most = json.loads((tiny_model_folder / "config.json").read_text())["max_position_embeddings"]
    text = settings.read_text()
    changed = re.sub(r"max_tokens = \d+", f"max_tokens = {most - 8}", text)
    assert changed != text
    settings.write_text(changed)
    done = shell("check", "tasks/tickets", "--model", str(tiny_model_folder))
    assert done.code == 1 and "leaves no room for an answer" in done.out
    assert shell("check", "tasks/tickets", "--model", "chat:http://127.0.0.1:9#m").code == 2
