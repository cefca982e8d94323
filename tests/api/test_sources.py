"""A file of examples becomes a task once; what has changed since is noticed, what somebody edited is never lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import posttrain
from posttrain.api.sources import load_task
from posttrain.types import Task, UserError

FOLDER = Path("tasks/tickets")


def add_a_row(path: str = "tickets.csv") -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("the invoice has a wrong date,billing\n")


def edit() -> None:
    text = (FOLDER / "task.toml").read_text()
    (FOLDER / "task.toml").write_text(re.sub(r'instructions = """.*?"""', 'instructions = "Which queue?"', text, flags=re.S))


def rows_of(task: Task) -> int:
    return sum(len(rows) for rows in task.splits.values())


def test_the_same_file_is_the_same_task() -> None:
    first = load_task("tickets.csv")
    again = load_task("./tickets.csv")
    assert again.hash == first.hash
    assert "made from ./tickets.csv before; nothing has changed" in again.notes[0]
    assert again.notes[1:] == first.notes, "what was guessed is still said"


def test_a_changed_file_is_read_again_and_that_is_said() -> None:
    assert rows_of(load_task("tickets.csv")) == 90
    add_a_row()
    again = load_task("tickets.csv")
    assert rows_of(again) == 91
    assert again.notes[0] == "task: tasks/tickets, made again: tickets.csv has changed"
    assert "nothing has changed" in load_task("tickets.csv").notes[0]


def test_a_changed_test_file_is_read_again_even_when_it_is_not_named_again() -> None:
    shutil.copy("tickets.csv", "held_out.csv")
    load_task("tickets.csv", test="held_out.csv")
    add_a_row("held_out.csv")
    again = load_task("tickets.csv")
    assert len(again.rows("test")) == 91
    assert "held_out.csv has changed" in again.notes[0]


def test_another_option_makes_the_task_again_and_one_that_is_not_given_stays() -> None:
    load_task("tickets.csv", grader="contains")
    assert type(load_task("tickets.csv").grader).__module__.endswith("contains")
    again = load_task("tickets.csv", grader="exact")
    assert type(again.grader).__module__.endswith("exact")
    assert "--grader is exact and was contains" in again.notes[0]


def test_options_of_init_are_remembered() -> None:
    first = posttrain.init("tickets.csv", grader="contains", seed=3)
    again = load_task("tickets.csv")
    assert "nothing has changed" in again.notes[0] and again.hash == first.hash
    add_a_row()
    again = load_task("tickets.csv")
    assert rows_of(again) == 91 and any("seed 3" in note for note in again.notes)
    assert type(again.grader).__module__.endswith("contains")


def test_what_was_edited_is_used_while_the_file_is_the_same() -> None:
    load_task("tickets.csv")
    edit()
    task = load_task("tickets.csv")
    assert task.instructions == "Which queue?"
    assert "edited since" in task.notes[0]


@pytest.mark.parametrize("change", [add_a_row, None], ids=["file", "option"])
def test_what_was_edited_is_never_overwritten(change: Callable[[], None] | None) -> None:
    load_task("tickets.csv")
    edit()
    options: Any = {} if change else {"grader": "exact"}
    if change:
        change()
    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    with pytest.raises(UserError, match="was edited since it was made") as refusal:
        load_task("tickets.csv", **options)
    assert "posttrain compare tasks/tickets" in refusal.value.remedy
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before


@pytest.mark.parametrize("added", ["documents/card.md", "grade.py"])
def test_what_was_added_counts_as_an_edit(added: str) -> None:
    load_task("tickets.csv")
    (FOLDER / added).parent.mkdir(exist_ok=True)
    (FOLDER / added).write_text("# mine\n")
    add_a_row()
    with pytest.raises(UserError, match="was edited"):
        load_task("tickets.csv")
    assert (FOLDER / added).exists()


def test_another_file_of_the_same_name_is_not_answered_from_the_first_ones_task() -> None:
    load_task("tickets.csv")
    Path("other").mkdir()
    shutil.copy("tickets.csv", "other/tickets.csv")
    assert rows_of(load_task("other/tickets.csv")) == 90  # the same content is the same task
    add_a_row("other/tickets.csv")
    with pytest.raises(UserError, match=r"it was made from tickets\.csv") as refusal:
        load_task("other/tickets.csv")
    assert "posttrain init other/tickets.csv --output" in refusal.value.remedy


def test_a_folder_that_nobody_made_from_a_file_is_left_alone() -> None:
    posttrain.init("tickets.csv")
    (FOLDER / "source.json").unlink()
    with pytest.raises(UserError, match="it was not made from a file"):
        load_task("tickets.csv")


def test_a_file_that_broke_does_not_cost_the_task_made_of_it_before() -> None:
    task = load_task("tickets.csv")
    Path("tickets.csv").write_text("message,queue\n")
    with pytest.raises(UserError):
        load_task("tickets.csv")
    assert load_task(FOLDER).hash == task.hash
    assert [path.name for path in Path("tasks").iterdir()] == ["tickets"]


@pytest.mark.parametrize("source", ["tasks/tickets", "tasks/tickets/task.toml", "arithmetic"])
def test_options_that_a_task_would_ignore_are_refused(source: str) -> None:
    posttrain.init("tickets.csv")
    options: list[dict[str, Any]] = [{"input": "a"}, {"target": ["b"]}, {"test": "c.csv"}, {"grader": "exact"}]
    for option in options:
        with pytest.raises(UserError, match="is a task already") as refusal:
            load_task(source, **option)
        assert refusal.value.place == f"--{next(iter(option))}"
