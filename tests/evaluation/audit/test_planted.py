"""Ten faults planted in sound graders by somebody who had not seen the audit, after it was frozen (commit a6f...)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from planted import PLANTED, Planted
from test_audit import Grading, worst

from posttrain.evaluation.audit import Audit, audit
from posttrain.types import Output, Task


def audited(planted: Planted, grader: Callable[..., Any]) -> Audit:
    grading = Grading(grader)
    grading.source = inspect.getsource(grader)
    task = Task(planted.name, "1", "", "", {"train": planted.rows}, grading, Output())
    return asyncio.run(audit(task))


@pytest.mark.parametrize("planted", PLANTED, ids=lambda each: each.name)
def test_the_fault_is_found(planted: Planted) -> None:
    found = audited(planted, planted.faulty)
    print(planted.name, worst(found), [v.answer[:60] for v in found.verdicts if v.word == "FOOLED"])
    assert found.fooled, planted.fault


@pytest.mark.parametrize("planted", PLANTED, ids=lambda each: each.name)
def test_the_sound_grader_is_not_accused(planted: Planted) -> None:
    found = audited(planted, planted.sound)
    assert not found.fooled and "CRASH" not in worst(found).values()
