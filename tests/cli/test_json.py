"""--json: one document on stdout and nothing else there, on every command, whatever the work prints and however it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from command_line import Shell

FLOORS = ("--candidates", "constant,nearest")
TASK = Path("tasks/tickets")
NOISY = """import subprocess
print("noise of the file")


def grade(row, answer):
    print("noise of the function", flush=True)
    return answer == row.target


def _once():
    subprocess.run(["echo", "noise of a program"], check=True)


_once()
"""
POSTTRAIN = str(Path(sys.executable).with_name("posttrain"))


def make_noisy(shell: Shell) -> None:
    shell("init", "tickets.csv", "--grader", "exact")
    toml = TASK / "task.toml"
    toml.write_text(toml.read_text().replace('name = "exact"', 'name = "python"'))
    (TASK / "grade.py").write_text(NOISY)


@pytest.mark.parametrize(
    "arguments",
    [
        ("compair", "tickets.csv", "--json"),
        ("compare", "tickets.csv", "--minits", "3", "--json"),
        ("compare", "tickets.csv", "--minutes", "soon", "--json"),
        ("compare", "tickets.csv", "--candidates", "lineer", "--json"),
        ("init", "--json"),
        ("chat", "--json"),
        ("serve", "./nothing", "--json"),
        ("export", "latest", "--json"),
        ("train", "sft", "tickets.csv", "--json"),
    ],
    ids=" ".join,
)
def test_an_error_is_one_document_too(arguments: tuple[str, ...], shell: Shell) -> None:
    said = shell(*arguments)
    assert said.code == 2
    assert said.document["schema"] == 1
    assert said.document["error"]["message"]
    assert set(said.document["error"]) == {"message", "place", "remedy"}
    assert "Traceback" not in said.err


def test_a_grader_that_prints_does_not_reach_stdout(shell: Shell) -> None:
    """In a process of its own, for programs that the grader starts write past Python's stdout."""
    make_noisy(shell)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for arguments in (["check", str(TASK)], ["compare", str(TASK), *FLOORS], ["evaluate", "latest", str(TASK)]):
        done = subprocess.run([POSTTRAIN, *arguments, "--json"], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["schema"] == 1
        assert "noise of the function" in done.stderr and "noise of a program" in done.stderr


def test_every_document_has_a_schema(shell: Shell) -> None:
    for arguments in (
        ("init", "tickets.csv"), ("check", "tasks/tickets"), ("compare", "tickets.csv", *FLOORS), ("show",),
        ("evaluate", "latest", "tickets.csv"), ("predict", "latest", "new.csv"), ("chat", "-m", "hello"), ("clean",),
    ):
        said = shell(*arguments, "--json")
        assert said.code == 0, said.err
        assert said.document["schema"] == 1, arguments


def test_a_reader_that_stops_early_is_no_bug(shell: Shell) -> None:
    shell("compare", "tickets.csv", *FLOORS)
    done = subprocess.run(
        ["bash", "-c", f"{POSTTRAIN} show --json | head -c 1"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "{" and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_clean_removes_nothing_without_yes(shell: Shell) -> None:
    run = shell("compare", "tickets.csv", *FLOORS, "--json").document["run"]
    would = shell("clean", "--keep", "0", "--json").document
    assert (would["removed"], would["to_remove"]) == ([], [run])
    assert Path(run).exists() and would["bytes"] > 0
    done = shell("clean", "--keep", "0", "--yes", "--json").document
    assert (done["removed"], done["to_remove"], done["bytes"]) == ([run], [], would["bytes"])
    assert not Path(run).exists()


def test_chat_answers_what_it_is_given_or_the_lines_of_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("compare", "tickets.csv", *FLOORS)
    asked = ["where is the parcel", "cannot sign in to the portal"]
    given = shell("chat", "latest/nearest", "-m", asked[0], "-m", asked[1], "--json").document
    assert [(one["asked"], one["answer"]) for one in given["replies"]] == list(zip(asked, ["shipping", "account"], strict=True))
    assert given["candidate"] == "nearest"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n".join(asked) + "\n"))
    assert shell("chat", "latest/nearest", "--json").document["replies"] == given["replies"]
    assert shell("chat", "latest/nearest", "-m", asked[0]).out == "shipping\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{asked[0]}\n\n{asked[1]}\n"))
    talked = shell("chat", "latest/nearest")  # an empty line ends it
    assert talked.out.count("shipping") == 1 and "account" not in talked.out


def test_serve_says_where_it_listens(shell: Shell) -> None:
    shell("compare", "tickets.csv", *FLOORS)
    command = [POSTTRAIN, "serve", "latest/nearest", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line == "}\n":
                break
        document = json.loads("".join(lines))
        body = {"model": document["models"][0], "messages": [{"role": "user", "content": "where is the parcel"}]}
        reply = httpx.post(f"{document['base_url']}/chat/completions", json=body).json()
        server.send_signal(signal.SIGINT)
        rest, err = server.communicate(timeout=20)
    assert document["schema"] == 1 and document["base_url"] == f"{document['url']}/v1"
    assert reply["choices"][0]["message"]["content"] == "shipping"
    assert rest == "" and server.returncode == 0, err
    assert "Traceback" not in err
