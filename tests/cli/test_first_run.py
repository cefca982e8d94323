"""What a first run prints, and in which order."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from command_line import Shell

from posttrain import api
from posttrain.api import comparing
from posttrain.cli.telling import contrasted

GUESSED = ("asked: column message; wanted: column queue", "grader choice: 3 labels", "splits: ")
END = ("cannot tell differences below", "✓", "report: ", "next:")


def in_order(text: str, *parts: str) -> None:
    at = 0
    for part in parts:
        assert part in text[at:], f"{part!r} is not after the others in\n{text}"
        at = text.index(part, at) + len(part)


def write_answers(always: str = "", wrong_every: int = 0) -> None:
    """ours.jsonl: what a running system says to every ticket, the right answer unless it says one thing `always`, or
    nothing at every so many."""
    with Path("tickets.csv").open(encoding="utf-8", newline="") as file:
        rows = [{"input": row["message"], "answer": always or row["queue"]} for row in csv.DictReader(file)]
    for row in rows[::wrong_every] if wrong_every else ():
        row["answer"] = "no idea"
    Path("ours.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_floors_alone(shell: Shell) -> None:
    said = shell("compare", "tickets.csv", "--candidates", "constant,nearest").out
    in_order(said, "tickets version 1", "model: none", *GUESSED, "some seconds: floors need no model", "\nconstant ", "\nnearest ",
             "A floor wins", *END)
    assert len([line for line in said.split("next:")[1].splitlines() if "posttrain" in line]) == 3
    rows = said.split("cannot tell differences")[1].split("report:")[0]
    assert rows.count("✓") == rows.count("✗") == rows.count("wanted") == 3


def test_a_task_folder_is_said_to_be_what_it_is(shell: Shell) -> None:
    with Path("two.csv").open("w", newline="") as file, Path("tickets.csv").open(newline="") as tickets:
        table = csv.writer(file)
        table.writerow(("message", "queue", "urgent"))
        for row in csv.DictReader(tickets):
            table.writerow((row["message"], row["queue"], "yes" if "where" in row["message"] else "no"))
    shell("init", "two.csv", "--target", "queue,urgent", "--output", "records")
    documents = Path("records/documents")
    documents.mkdir()
    (documents / "card.md").write_text("# Parcels\nThey take two days.\n")
    toml = Path("records/task.toml")
    toml.write_text('documents = "documents"\n' + toml.read_text())
    said = shell("compare", "records", "--candidates", "constant,nearest").out
    in_order(said, "records version 1: ", " train, ", " dev, ", " test rows, 1 documents",
             "answer: a record of queue, urgent; grader: json", "some seconds", "\nconstant ")


def test_with_a_model_the_estimate_comes_before_the_first_row(shell: Shell, tiny_model_folder: Path) -> None:
    write_answers(always="billing")
    said = shell("compare", "tickets.csv", "--candidates", "constant,base,sft", "--minutes", "0.4", "--answers",
                 "ours=ours.jsonl", "--model", str(tiny_model_folder))
    assert said.code == 0, said.err
    in_order(said.out, f"model: {tiny_model_folder}", *GUESSED, "GB; Ctrl-C keeps what is done", "\ncandidate ", "\nours ", "\nconstant ", "\nbase ",
             "\nsft ", f"Model: {tiny_model_folder}.", "cannot tell differences below", "report: ", "next:")
    assert "some seconds" not in said.out
    couple = contrasted(api.show("latest"))
    assert couple is not None and [each.name for each in couple] == ["base", "sft"]


def test_what_runs_today_is_left_for_something_as_good_and_cheaper(shell: Shell) -> None:
    write_answers(wrong_every=6)
    Path("costs.toml").write_text("[ours]\nper_1000_requests = 12.5\n\n[linear]\npeople = 40\n")
    asked = ("compare", "tickets.csv", "--candidates", "constant,linear", "--answers", "ours=ours.jsonl", "--volume", "8000",
             "--costs", "costs.toml")
    said = shell(*asked)
    assert said.code == 2 and "costs of 'linear' are money" in said.err and "--price-per-hour" in said.err
    assert not Path("runs").exists() or not list(Path("runs").iterdir()), "before anything was done"
    said = shell(*asked, "--price-per-hour", "0.4")
    assert said.code == 0, said.err
    report = shell("show", "--json").document
    by_name = {one["name"]: one for one in report["candidates"]}
    assert (by_name["ours"]["cost_per_1000_requests"], by_name["ours"]["cost_unit"]) == (12.5, "$")
    assert 40 < by_name["linear"]["one_off_cost"] < 41
    pays = by_name["linear"]["requests_to_break_even"]
    assert 3200 <= pays["value"] < 3300 and pays["interval"], "40 / 0.0125, and a little for the device"
    assert by_name["linear"]["months_to_pay_back"]["verdict"] == "after 0.4 months"
    assert by_name["constant"]["requests_to_break_even"]["verdict"] == "cheaper, not shown as good"
    assert report["recommendation"]["candidate"] == "linear"
    assert "Take linear because it is cheaper and as good" in report["recommendation"]["reason"]
    config = json.loads(Path(report["run"], "config.json").read_text())
    assert config["settings"]["costs"]["linear"]["people"] == 40
    resumed = shell("compare", "--resume", "latest", "--json").document
    assert resumed["recommendation"] == report["recommendation"]
    said = shell("compare", "--resume", "latest", "--price-per-hour", "4")
    assert said.code == 2 and "keep the prices and costs" in said.err

    Path("costs.toml").write_text("[theirs]\npeople = 1\n")
    said = shell(*asked, "--price-per-hour", "0.4")
    assert said.code == 2 and "costs of 'theirs', which is not compared" in said.err


def test_the_next_commands_name_a_task_that_can_be_checked(shell: Shell) -> None:
    write_answers()
    said = shell("compare", "tickets.csv", "--candidates", "constant", "--answers", "ours=ours.jsonl")
    assert "Keep what you have" in said.out
    assert "posttrain check tasks/tickets" in said.out
    assert shell("check", "tasks/tickets").code == 0


@pytest.mark.parametrize("runs", ["runs", "other runs"])
def test_what_runs_today_cannot_be_asked_anew_and_what_can_is_named(shell: Shell, runs: str) -> None:
    """Its answers are all there is of it: predict abstained on every row, and a server answered 500."""
    write_answers()
    said = shell("compare", "tickets.csv", "--candidates", "constant,nearest", "--answers", "ours=ours.jsonl", "--runs", runs)
    assert "Keep what you have" in said.out
    (folder,) = Path(runs).glob("*-compare")
    run = "latest" if runs == "runs" else str(folder)
    best = f"{run}/nearest"
    commands = [shlex.split(line)[1:] for line in said.out.split("next:")[1].splitlines() if "posttrain" in line]
    assert commands == [["show", run, "--all"], ["check", "tasks/tickets"], ["serve", best]]
    assert shell(*commands[0]).code == 0 and shell(*commands[1]).code == 0
    assert shell("predict", best, "new.csv").code == 0, "what is to be served can answer"
    for place in (run, f"{run}/ours"):
        for asked in (("predict", place, "new.csv"), ("chat", place, "-m", "hello"), ("serve", place, "--port", "0")):
            refused = shell(*asked)
            assert refused.code == 2 and "ours is a system of yours" in refused.err
            assert f"posttrain serve {shlex.quote(f'{folder}/nearest')}" in refused.err
    judged = shell("evaluate", f"{run}/ours", "tasks/tickets", "--split", "test", "--json")
    assert judged.document["score"] == 1, "what it said of the task's own rows is judged as ever"


@pytest.mark.parametrize("runs", ["runs", "other runs"])
def test_the_next_commands_name_a_run_that_is_found(shell: Shell, runs: str) -> None:
    said = shell("compare", "tickets.csv", "--candidates", "constant,nearest", "--runs", runs)
    commands = [shlex.split(line) for line in said.out.split("next:")[1].splitlines() if "posttrain" in line]
    assert [command[1] for command in commands] == ["serve", "predict", "show"]
    (run,) = {command[2] for command in commands}
    assert (run == "latest") == (runs == "runs")
    assert shell("show", run).code == 0 and shell("predict", run, "new.csv").code == 0


def test_a_run_that_is_gone_on_with_has_the_rest_of_its_minutes(shell: Shell) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,nearest", "--minutes", "5")
    (run,) = Path("runs").glob("*-compare")
    assert comparing.question(resume=run).minutes == pytest.approx(5, abs=0.5)
    result = run / "candidates" / "nearest" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"timings": {"nearest: teaching": 120.0}}))
    assert comparing.question(resume=run).minutes == pytest.approx(3, abs=0.5)
    assert comparing.question(resume=run, minutes=5).minutes == 5, "those that are stated anew"


def test_a_run_that_is_gone_on_with_need_not_be_the_latest(shell: Shell) -> None:
    for name in ("constant", "nearest"):
        shell("compare", "tickets.csv", "--candidates", f"constant,{name}")
    first = min(Path("runs").glob("*-compare"))
    assert f"posttrain show {first} --all" in shell("compare", "--resume", str(first)).out
