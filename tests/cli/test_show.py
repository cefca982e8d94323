"""What the terminal is shown, and what `posttrain show` prints of a finished run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from command_line import Shell
from rich.console import Console

from posttrain.cli import options, show
from posttrain.runs import Progress
from posttrain.types import UserError

FLOORS = ("--candidates", "constant,nearest,linear")


def test_markdown_is_the_run_ready_to_be_pasted(shell: Shell) -> None:
    report = shell("compare", "tickets.csv", *FLOORS, "--minutes", "2", "--json").document
    done = shell("show", "latest", "--markdown")
    assert done.code == 0 and not done.err
    table, verdict, source = done.out.strip().split("\n\n")
    scores = {one["name"]: f"{100 * one['score']:.0f} %" for one in report["candidates"]}
    for line in table.splitlines()[2:]:
        name, _, right = (cell.strip() for cell in line.strip("|").split("|")[:3])
        assert scores.pop(name.strip("*")) in right.replace("*", "")
    assert not scores, "every candidate has its line"
    assert verdict == f"> {report['recommendation']['reason']}"
    config = json.loads(Path(report["run"], "config.json").read_text())
    assert source.startswith(f"Run `{Path(report['run']).name}` of {config['date']}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", config["date"])
    assert "`--minutes 2`" in source and (not config["commit"] or f"commit {config['commit']}," in source)
    assert max(map(len, done.out.splitlines())) > 112, "lines are not broken to fit a terminal"


@pytest.mark.parametrize("both", [("--markdown", "--json"), ("--markdown", "--all"), ("--all", "--json")])
def test_options_that_would_be_ignored_are_refused(shell: Shell, both: tuple[str, str]) -> None:
    said = shell("show", "latest", *both)
    assert said.code == 2 and "do not go together" in said.err + said.out


def test_an_option_that_names_something_twice_is_refused() -> None:
    assert options.pairs(["a=1", "b=2=3"], "--answers") == {"a": "1", "b": "2=3"}
    with pytest.raises(UserError, match="'a' is given twice"):
        options.pairs(["a=1", "a=2"], "--answers")


def test_a_name_with_brackets_is_shown_as_it_is(shell: Shell) -> None:
    """As markup "[/]" would close what nobody opened, and end the comparison with a traceback."""
    with Path("tickets.csv").open(encoding="utf-8", newline="") as file, Path("ours.jsonl").open("w") as answers:
        for row in csv.DictReader(file):
            answers.write(json.dumps({"input": row["message"], "answer": row["queue"]}) + "\n")
    done = shell("compare", "tickets.csv", "--candidates", "constant", "--answers", "our[/]s=ours.jsonl")
    (first, _) = shell("show", "--json").document["recommendation"]["sentences"]
    assert "our[/]s" in first
    assert "asked: column message; wanted: column queue" in shell("show").out, "what was assumed"
    assert first in " ".join(done.out.split()) and first in " ".join(shell("show").out.split())
    assert "| **our\\[/\\]s** |" in shell("show", "latest", "--markdown").out


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_names_as_they_are(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with brackets is no markup: a closing one would end the comparison."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(show, "errors", console)
    with show.progress() as shown:
        shown.written -= 60  # as if a line were due
        shown(Progress("ours[/]: test rows [bold]", 3, 10, "loss [/red]"))
    assert isinstance(console.file, io.StringIO)
    assert "ours[/]: test rows [bold]" in console.file.getvalue()
    assert "loss [/red]" in console.file.getvalue()
