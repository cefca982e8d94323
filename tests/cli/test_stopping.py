"""Ctrl-C: the first keeps what is done and says how to go on, the second kills at once; log.txt holds what was said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_line import Said, Shell

from posttrain.runs import Run
from posttrain.techniques import sft

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


FLOORS = ("--candidates", "constant,nearest")
LIMITED = """import os, resource, sys

resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
os.execv(sys.argv[1], sys.argv[1:])
"""


def begin(shell: Shell, grader: str, *options: str) -> subprocess.Popen[str]:
    """A comparison of floors that is busy grading."""
    shell("init", "tickets.csv", "--grader", "exact")
    toml = TASK / "task.toml"
    toml.write_text(toml.read_text().replace('name = "exact"', 'name = "python"'))
    (TASK / "grade.py").write_text(grader)
    command = [str(Path(sys.executable).with_name("posttrain")), "compare", str(TASK), *FLOORS, *options]
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


def test_a_program_is_told_in_a_document_that_it_was_stopped(shell: Shell) -> None:
    with begin(shell, SLOW, "--json") as comparing:
        comparing.send_signal(signal.SIGINT)
        out, _ = comparing.communicate(timeout=30)
    assert comparing.returncode == 130
    assert json.loads(out)["error"]["message"] == "interrupted"


def test_a_full_disk_is_said_and_what_was_done_is_kept(shell: Shell) -> None:
    """No file may grow beyond a size, which to a program is a full disk."""
    shell("init", "tickets.csv", "--grader", "exact")
    compare = [str(Path(sys.executable).with_name("posttrain")), "compare", str(TASK), *FLOORS]
    limited = [sys.executable, "-c", LIMITED, *compare]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr and "free some space" in done.stderr and "Traceback" not in done.stderr
    (run,) = Path("runs").glob("*-compare")
    assert shell("compare", "--resume", str(run)).code == 0
    assert json.loads((run / "report.json").read_text())["candidates"]


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


def stopped_when(pattern: str, contains: str, shell: Shell, *arguments: str) -> Said:
    """What a command says that gets a Ctrl-C once a file of this name holds this."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any(contains in path.read_text() for path in Path().glob(pattern)):
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    said = shell(*arguments)
    watching.join()
    return said


def test_teaching_that_is_stopped_keeps_the_best_so_far(shell: Shell, tiny_model_folder: Path) -> None:
    said = stopped_when("runs/*/teaching/sft/metrics.jsonl", "judged_score", shell, "teach", "sft+best_of", "tickets.csv",
                        "--model", str(tiny_model_folder))
    assert said.code == 0 and "Stopped; what was best by then is kept." in said.out
    (run,) = Path("runs").glob("*-teach")
    kept = json.loads((run / "result.json").read_text())
    assert kept["technique"] == "sft", "best_of never began"
    assert max(record["epoch"] for record in Run(run / "teaching/sft").metrics()) < sft.Config().epochs
    assert shell("predict", "latest", "new.csv").code == 0


def test_teaching_that_is_stopped_before_it_has_begun_says_so(shell: Shell, tiny_model_folder: Path) -> None:
    said = stopped_when("runs/*/log.txt", "", shell, "teach", "sft", "tickets.csv", "--model", str(tiny_model_folder))
    assert said.code == 130 and "Nothing was learnt by then" in said.err and "Traceback" not in said.err
