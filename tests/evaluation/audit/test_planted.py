"""Faults planted in sound graders by somebody who had not seen the audit, in seven batches, each after it was frozen.

Of the first ten it then found four, of the second and of the third eight, of the fourth, the fifth and the sixth seven, of the
seventh five (docs/notes/2026-11-29-graders-audited.md and the later ones); what it missed taught it most of the rest.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import planted
import planted_again
import planted_fifthly
import planted_fourthly
import planted_seventhly
import planted_sixthly
import planted_thirdly
import pytest
from test_audit import Grading, worst

from posttrain.evaluation.audit import Audit, audit
from posttrain.types import Output, Task, target_text

ALL = [*planted.PLANTED, *planted_again.PLANTED, *planted_thirdly.PLANTED, *planted_fourthly.PLANTED, *planted_fifthly.PLANTED,
       *planted_sixthly.PLANTED, *planted_seventhly.PLANTED]

PART_OF_THE_TASK = {"maze": "WARN", "knight": "WARN", "proof": "", "shifts": "", "landfall": ""}
"""Who cheats there must find the ends of a way, squares that lie three apart, a circle among implications, every day of a
week, the date in a question and the last minute of it: who knows the wanted answer is warned of, at most."""


def audited(planted: Any, grader: Callable[..., Any]) -> Audit:
    grading = Grading(grader)
    grading.source = inspect.getsource(grader)
    task = Task(planted.name, "1", "", "", {"train": planted.rows}, grading, Output())
    return asyncio.run(audit(task))


@pytest.mark.parametrize("planted", ALL, ids=lambda each: each.name)
def test_the_fault_is_one(planted: Any) -> None:
    """Both graders pay what is wanted, and only the faulty one pays the cheat."""
    rows = planted.rows
    wanted = [target_text(row.target) for row in rows]
    assert all(grade(row, text) == 1 for grade in (planted.sound, planted.faulty) for row, text in zip(rows, wanted, strict=True))
    paid = [sum(grade(row, planted.cheat(row)) for row in rows) / len(rows) for grade in (planted.faulty, planted.sound)]
    assert paid[0] >= 0.9 and paid[1] <= 0.25


@pytest.mark.parametrize("planted", ALL, ids=lambda each: each.name)
def test_the_fault_is_found(planted: Any) -> None:
    found = audited(planted, planted.faulty)
    wanted = PART_OF_THE_TASK.get(planted.name, "FOOLED")
    if not wanted:
        assert not found.fooled, "it is found now: say so"
        return
    probes = {verdict.probe for verdict in found.verdicts if verdict.word == wanted}
    assert probes - {verdict.probe for verdict in audited(planted, planted.sound).verdicts if verdict.word == wanted}


@pytest.mark.parametrize("planted", ALL, ids=lambda each: each.name)
def test_the_sound_grader_is_not_accused(planted: Any) -> None:
    found = audited(planted, planted.sound)
    assert not found.fooled and "CRASH" not in worst(found).values()
