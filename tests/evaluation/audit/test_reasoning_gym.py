"""reasoning-gym's own faults are found, and its sound generators are not accused."""

from __future__ import annotations

import asyncio

import pytest

from posttrain import api, tasks
from posttrain.evaluation.audit import audit
from posttrain.tasks.imported import reasoning_gym
from posttrain.types import UserError, target_text

FOOLED = {
    "coin_flip",  # "0": as many characters as are compared are the beginning of "0.5"
    "complex_arithmetic",  # "nan": min(1, nan) is 1
    "game_of_life",  # an empty board is right in most cells
    "game_of_life_halting",  # any text: both sides are turned into bool, and "False" is true
    "puzzle24",  # 6+6+6+6: its numbers are not compared with the question's
    "string_insertion",  # most strings have nothing to insert: the question's last word is the answer
}
"""Each looked at by a person, 2026-11-29, version 0.1.25."""


def words(name: str) -> set[str]:
    found = asyncio.run(audit(reasoning_gym.task(name, {"train": 64})))
    return {verdict.word for verdict in found.verdicts}


@pytest.mark.parametrize("name", ["game_of_life_halting", "puzzle24", "game_of_life"])
def test_what_any_text_or_one_constant_is_paid_for_is_found(name: str) -> None:
    assert "FOOLED" in words(name)


def test_a_scorer_that_raises_on_text_is_found() -> None:
    assert words("prime_factorization") >= {"CRASH"} and "FOOLED" not in words("prime_factorization")


@pytest.mark.parametrize("name", ["gcd", "syllogism", "word_sorting", "countdown"])
def test_sound_ones_are_not_accused(name: str) -> None:
    assert "FOOLED" not in words(name)


def test_a_generator_is_a_task() -> None:
    task = tasks.load("reasoning_gym:gcd")
    assert {split: len(rows) for split, rows in task.splits.items()} == reasoning_gym.SIZES
    ids = [row.id for rows in task.splits.values() for row in rows]
    assert len(set(ids)) == len(ids) and task.hash == tasks.load("reasoning_gym:gcd").hash
    row = task.rows("test")[0]
    assert row.target is not None and asyncio.run(task.grader.grade(row, target_text(row.target))).passed
    assert not asyncio.run(task.grader.grade(row, "banana")).passed


def test_a_name_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no generator 'puzle24'") as caught:
        tasks.load("reasoning_gym:puzle24")
    assert "reasoning_gym:puzzle24" in caught.value.remedy
    with pytest.raises(UserError, match="which generator"):
        tasks.load("reasoning_gym")


@pytest.mark.slow
def test_all_of_them() -> None:
    found = api.audit("reasoning_gym")
    assert len(found) == 105
    assert {one.task.removeprefix("reasoning_gym:") for one in found if one.fooled} == FOOLED
    print({one.task: round(one.seconds, 1) for one in found if one.seconds > 1})
