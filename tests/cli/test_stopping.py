"""Ctrl-C: the first keeps what is done and says how to go on, the second kills at once; log.txt holds what was said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Shell

TASK = Path("tasks/tickets")
STUBBORN = """import time


def grade(row, answer):
    open("grading", "w").close()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            open("asked_to_stop", "w").close()
"""
SLOW = "import time\n\n\ndef grade(row, answer):\n    open('grading', 'w').close()\n    time.sleep(0.5)\n    return True\n"


def begin(shell: Shell, grader: str) -> subprocess.Popen[str]:
    """A comparison of floors that is busy grading."""
    shell("init", "tickets.csv", "--grader", "exact")
    toml = TASK / "task.toml"
    toml.write_text(toml.read_text().replace('name = "exact"', 'name = "python"'))
    (TASK / "grade.py").write_text(grader)
    command = [str(Path(sys.executable).with_name("posttrain")), "compare", str(TASK), "--candidates", "constant,nearest"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for("grading", process)
    return process


def wait_for(file: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not Path(file).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_one_kills_whatever_the_process_is_doing(shell: Shell, number: signal.Signals) -> None:
    with begin(shell, STUBBORN) as comparing:
        comparing.send_signal(number)
        wait_for("asked_to_stop", comparing)
        began = time.monotonic()
        comparing.send_signal(number)
        _, err = comparing.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert comparing.returncode == -number
    assert "Ctrl-C again kills" in err


def test_the_first_one_ends_it_and_says_how_to_go_on(shell: Shell) -> None:
    with begin(shell, SLOW) as comparing:
        began = time.monotonic()
        comparing.send_signal(signal.SIGINT)
        _, err = comparing.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert comparing.returncode == 130, err
    (run,) = Path("runs").glob("*-compare")
    assert f"posttrain compare --resume {run}" in err and "Traceback" not in err
    assert "Stopped." in (run / "log.txt").read_text()
    (TASK / "grade.py").write_text(SLOW.replace("time.sleep(0.5)", "time.sleep(0)"))
    assert "the task has changed" in shell("compare", "--resume", str(run)).err


def test_the_log_holds_what_was_said(shell: Shell) -> None:
    said = shell("compare", "tickets.csv", "--candidates", "constant,nearest")
    (run,) = Path("runs").glob("*-compare")
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert log == said.out
    assert "\x1b" not in log
    shell("compare", "--resume", str(run), "--json")
    again = (run / "log.txt").read_text(encoding="utf-8")
    assert again.startswith(log) and again.count("report:") == 2, "also where stdout holds a document"


def test_the_log_holds_why_a_run_failed(shell: Shell) -> None:
    with begin(shell, "def grade(row, answer):\n    open('grading', 'w').close()\n    raise ValueError('broken')\n") as run:
        run.communicate(timeout=60)
    assert run.returncode == 2
    (log,) = Path("runs").glob("*/log.txt")
    assert "error: " in log.read_text() and "broken" in log.read_text()
