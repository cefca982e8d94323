"""Before reinforcement learning begins, its grader is audited: training would find what can be had for nothing."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Literal

from posttrain.evaluation.audit import Audit, audit
from posttrain.evaluation.audit.grading import LONGEST_WAIT, graded
from posttrain.runs import SCHEMA, Run, read_json, write_json
from posttrain.types import Task, UserError

Fooled = Literal["stop", "warn"]

RECORD = "audit.json"

SLOW_SECONDS = 0.05
"""For an answer; an audit takes a thousand or two."""


async def audited(task: Task, run: Run, fooled: Fooled) -> str:
    """What the audit found, in a sentence; the whole of it is written to audit.json.  Only graders are audited.

    Raises UserError when the grader was fooled and training is to stop for that.  A run that goes on is not audited
    anew.
    """
    path = run.folder / RECORD
    if path.exists():
        return str(read_json(path)["told"])
    if not getattr(task.environment, "graded", True):
        return "none: what the world of its episodes pays is not audited"
    if (seconds := await _seconds(task)) > SLOW_SECONDS:
        return f"none: the grader takes {seconds:.1f} s for an answer, and would be asked many; posttrain audit asks it"
    found = await audit(task)
    paid = [verdict for verdict in found.verdicts if verdict.word == "FOOLED"]
    told = _told(found)
    if paid and fooled == "stop":
        worst = max(paid, key=lambda verdict: verdict.earned)
        raise UserError(
            f"an answer that does not do the task earns {worst.earned:.2f} of 1: {worst.told} (FOOLED)",
            place=worst.place or f"grader of {task.name}",
            remedy="mend the grader (posttrain audit shows all), or train on it as it is with --set fooled=warn",
        )
    write_json(path, {"schema": SCHEMA, "told": told, **asdict(found)})
    return told


async def _seconds(task: Task) -> float:
    """How long the grader takes for an answer, the first left out: it may load what it needs."""
    times = []
    for row in task.rows("train")[:4]:
        started = time.monotonic()
        await graded(task.grader, row, "banana", LONGEST_WAIT)
        times.append(time.monotonic() - started)
    return min(times[1:], default=0.0)


def _told(found: Audit) -> str:
    """How many probes had which verdict, with the names of those that were not resisted."""
    parts = []
    for word in ("FOOLED", "CRASH", "WARN"):
        names = [verdict.probe for verdict in found.verdicts if verdict.word == word]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    resisted = sum(verdict.word == "RESISTED" for verdict in found.verdicts)
    return "; ".join([*parts, f"{resisted} probes resisted"])
