"""A training that is killed with SIGKILL, again and again, ends in the same bytes as one that never was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tickets import lay_out

COMMAND = [sys.executable, "-c", "from posttrain.cli.main import main; main()", "teach"]
KEPT = ("adapter_model.safetensors", "optimiser.safetensors")
TRIES = 5
PATIENCE_SECONDS = 900


def begin(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def to_the_end(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # else it would compute beside the tests that come
        raise
    assert process.returncode == 0, said
    return said


def run_of(folder: Path) -> Path:
    [run] = (folder / "runs").iterdir()
    return run


def is_writing(folder: Path) -> bool:
    return any(folder.glob("runs/*/teaching/*/checkpoints/*.partial"))


def logged_bytes(folder: Path) -> int:
    total = 0
    for path in folder.glob("runs/*/teaching/*/metrics.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # begun anew at this very moment
            total += path.stat().st_size
    return total


def kill(process: subprocess.Popen[str], folder: Path, *, after: float, writing: bool) -> bool:
    """Kills it after so many seconds of training, or in the next write of a checkpoint after them; False when it ended
    before."""
    before, began = logged_bytes(folder), None
    while process.poll() is None:
        if began is None and logged_bytes(folder) != before:
            began = time.monotonic()
        if began is not None and time.monotonic() - began >= after and (not writing or is_writing(folder)):
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.0005 if writing else 0.01)
    return False


def training_seconds(process: subprocess.Popen[str], folder: Path) -> float:
    """From what it logs first to what it logs last."""
    changed, before = [], 0
    while process.poll() is None:
        if (now := logged_bytes(folder)) != before:
            changed.append(time.monotonic())
            before = now
        time.sleep(0.01)
    to_the_end(process)
    return changed[-1] - changed[0]


def digests(run: Path) -> dict[str, str]:
    """Of the final adapter, and of the newest checkpoints' adapters and optimisers."""
    newest = [path for path in run.glob("teaching/*/checkpoints/*") if path.suffix != ".partial"]
    assert newest and len(newest) == len(list(run.glob("teaching/*/checkpoints"))), "older ones are removed"
    files = [*(path / name for path in newest for name in KEPT), run / "saved" / "adapter" / KEPT[0]]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def logged(run: Path) -> dict[str, list[dict[str, object]]]:
    """What was logged, but for the time it took."""
    found = {}
    for path in run.glob("teaching/*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [{key: value for key, value in record.items() if key != "seconds"}
                                   for record in records]
    return found


def killed_again_and_again(
        arguments: Sequence[str], tmp_path: Path, *, kills: int, of_these_writing: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    seconds = training_seconds(begin(arguments, whole), whole)
    longest = 0.7 * seconds / kills  # so that it is not at its end before the last
    wanted = [True] * of_these_writing + [False] * (kills - of_these_writing)
    for attempt in range(TRIES):  # on a busy machine a training may be at its end before the last kill comes
        shutil.rmtree(killed)
        killed.mkdir()
        draw, done = random.Random(attempt), {True: 0, False: 0}
        draw.shuffle(wanted)
        process = begin(arguments, killed)
        for writing in wanted:
            if not kill(process, killed, after=draw.uniform(0, longest / (attempt + 1)), writing=writing):
                break
            done[writing] += 1
            process = begin(["--resume", "latest"], killed)
        said = to_the_end(process) if process.poll() is None else ""
        print(f"{arguments[0]}: killed {sum(done.values())} times, {done[True]} of them while a checkpoint was written", said)
        if sum(done.values()) == kills:
            break
    assert done == {True: of_these_writing, False: kills - of_these_writing}
    assert digests(run_of(killed)) == digests(run_of(whole))
    assert logged(run_of(killed)) == logged(run_of(whole))
    final = load_file(run_of(killed) / "saved" / "adapter" / KEPT[0])
    assert any(tensor.abs().max() > 0 for name, tensor in final.items() if "lora_B" in name)


TINY = {
    "sft": ["--set", "epochs=15", "--set", "patience=15", "--set", "batch_size=4"],
    "dpo": ["--set", "epochs=15", "--set", "pairs_per_step=4", "--set", "learning_rate=3e-3"],
}


@pytest.mark.parametrize("technique", [*TINY])
def test_a_killed_training_ends_in_the_same_bytes(technique: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    lay_out(tmp_path)
    arguments = [technique, str(tmp_path / "tickets.csv"), "--model", str(tiny_model_folder), *TINY[technique]]
    killed_again_and_again(arguments, tmp_path, kills=1, of_these_writing=1)


REAL = {
    "sft": ["tickets.csv", "--set", "epochs=8", "--set", "patience=8", "--set", "batch_size=8"],
    "dpo": ["tickets.csv", "--set", "epochs=16", "--set", "pairs_per_step=8"],
    "few_shot+grpo": ["arithmetic", "--steps", "24", "--set", "rows_per_step=8", "--set", "dev_rows=12"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("technique", "kills", "writing"), [("sft", 7, 2), ("dpo", 6, 1), ("few_shot+grpo", 7, 2)])
def test_a_killed_training_of_the_real_model(technique: str, kills: int, writing: int, tmp_path: Path) -> None:
    """Together 20 kills, 5 of them while a checkpoint is written."""
    lay_out(tmp_path)
    source, *settings = REAL[technique]
    source = str(tmp_path / source) if (tmp_path / source).exists() else source
    arguments = [technique, source, *settings]
    killed_again_and_again(arguments, tmp_path, kills=kills, of_these_writing=writing)


def test_a_run_that_has_ended_or_whose_task_has_changed_does_not_go_on(
        tiny_model_folder: Path, tmp_path: Path) -> None:
    lay_out(tmp_path)
    table = tmp_path / "tickets.csv"
    to_the_end(begin(["sft", str(table), "--model", str(tiny_model_folder), "--set", "epochs=1"], tmp_path))
    again = begin(["--resume", "latest"], tmp_path)
    said, _ = again.communicate(timeout=PATIENCE_SECONDS)
    assert again.returncode == 2 and "this run has ended" in said
    (run_of(tmp_path) / "result.json").unlink()
    rows = tmp_path / json.loads((run_of(tmp_path) / "config.json").read_text())["task_source"] / "train.jsonl"
    rows.write_text(rows.read_text().replace("charged twice", "charged thrice"))
    again = begin(["--resume", "latest"], tmp_path)
    said, _ = again.communicate(timeout=PATIENCE_SECONDS)
    assert again.returncode == 2 and "is another than when this run began" in said
