"""benchmarks/side_by_side.py: workers answer, unequal work gets no ratio, an answer replaces an older one."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
EQUAL = {"threads": 1, "trained_tokens": 8, "losses": [1.0], "gradient_norms": [0.5], "cpu_seconds": 2.0}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("side_by_side", BENCHMARKS / "side_by_side.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "side_by_side", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results" / "latest.json")
    return module


def test_a_worker_does_what_it_is_asked(program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sides").mkdir()
    (tmp_path / "sides" / "_worker.py").write_text((BENCHMARKS / "sides" / "_worker.py").read_text())
    (tmp_path / "sides" / "adder.py").write_text(
        "import os, sys\nfrom _worker import serve, stopwatch\nprint('said while it is loaded')\n"
        "def add(a, b):\n    with stopwatch() as taken:\n        print('said while it works')\n    return taken | {'sum': a + b, 'given': sys.argv[1], "
        "'threads': os.environ['OMP_NUM_THREADS']}\nserve({'add': add})\n")
    monkeypatch.setattr(program, "HERE", tmp_path)
    with program.Side(Path(sys.executable), "adder.py", "x", threads=3) as side:
        for a in (1, 20):
            reply = side.do("add", a=a, b=3)
            assert (reply["sum"], reply["given"], reply["threads"]) == (a + 3, "x", "3")
        assert reply["wall_seconds"] >= 0 and reply["cpu_seconds"] >= 0 and reply["peak_bytes"] > 1e6
    assert side.process.returncode == 0
    with program.Side(Path(sys.executable), "nowhere.py", threads=1) as dead, pytest.raises(RuntimeError, match="ended"):
        dead.do("add")


@pytest.mark.parametrize(("change", "said"), [
    ({"threads": 2}, "threads"), ({"trained_tokens": 9}, "trained_tokens"), ({"losses": [1.01]}, "losses of step 0"),
    ({"gradient_norms": [0.51]}, "gradient_norms of step 0"), ({"losses": [float("nan")]}, "losses")])
def test_unequal_work_gets_no_ratio(program: ModuleType, change: dict[str, Any], said: str) -> None:
    program.refuse_unless_equal(program.Pair(EQUAL, EQUAL))
    with pytest.raises(RuntimeError, match=said):
        program.refuse_unless_equal(program.Pair(EQUAL, EQUAL | change))


class Worker:
    """A side that has done its turns already."""

    def __init__(self, trained_tokens: list[int]) -> None:
        self.left = trained_tokens

    def do(self, _: str) -> dict[str, Any]:
        return EQUAL | {"wall_seconds": 2.0, "trained_tokens": self.left.pop(0), "settings": {"batch": 3}}


def test_counts_are_compared_in_every_turn(program: ModuleType) -> None:
    turns = [8, 8, 8], [8, 8, 7]  # the first of each warms up
    with pytest.raises(RuntimeError, match="trained_tokens: ours 8, the peer's 7"):
        program.pairs(*map(Worker, map(list, turns)), 2, "epoch")
    found = program.pairs(*map(Worker, map(list, turns)), 2, "epoch", same=("threads",))
    answer = program.record("sweep", "a peer", "cpu_seconds", 1.0, found, {})
    assert [answer["counts"][side]["trained_tokens"] for side in ("ours", "peer")] == [8, 7], "as they are"
    assert answer["peer_settings"] == {"batch": 3}


def test_an_answer_takes_the_place_of_an_older_one(program: ModuleType) -> None:
    pairs = [program.Pair(EQUAL, EQUAL | {"cpu_seconds": seconds}) for seconds in (8.0, 12.0, 100.0)]
    for target in (5.0, 7.0):
        answer = program.record("sft", "a peer", "cpu_seconds", target, pairs, {"rows": "some"})
    program.record("another", "a peer", "cpu_seconds", 1.0, pairs, {})
    assert answer["ratio"] == 6.0 and answer["ratios"] == [4.0, 6.0, 50.0]
    kept = json.loads(program.RESULTS.read_text())
    assert [(each["question"], each["target"]) for each in kept] == [("sft", 7.0), ("another", 1.0)]
    assert kept[0]["commit"] and kept[0]["machine"] and kept[0]["counts"]["ours"]["trained_tokens"] == 8
