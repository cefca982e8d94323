"""What benchmarks/grpo_arithmetic.py rewards."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from posttrain.types import Completion, Message, Rollout, Row, Score

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "grpo_arithmetic.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grpo_arithmetic", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_shuffled_rewards_are_those_of_the_same_group(program: ModuleType) -> None:
    row = Row("1", (Message("user", "What is 40 + 44?"),), "84")
    groups = [[Rollout(row, completion=Completion(str(i), "stop"), score=Score(i / 7, i == 7)) for i in range(8)],
              [Rollout(row, completion=Completion("84", "stop"), score=Score(1.0, True))]]
    exact = program.rewarding(False, 0)(groups)
    assert exact == [[i / 7 for i in range(8)], [1.0]]
    shuffled = program.rewarding(True, 0)(groups)
    assert [sorted(values) for values in shuffled] == exact and shuffled != exact
