"""Before reinforcement learning begins, its grader is audited: training would find what can be had for nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from posttrain.evaluation.audit import Audit, audit
from posttrain.runs import SCHEMA, Run, read_json, write_json
from posttrain.types import Task, UserError

Fooled = Literal["stop", "warn"]

RECORD = "audit.json"


async def audited(task: Task, run: Run, fooled: Fooled) -> str:
    """What the audit found, in a sentence; the whole of it is written to audit.json.

    Raises UserError when the grader was fooled and training is to stop for that.  A run that goes on is not audited
    anew.
    """
    path = run.folder / RECORD
    if path.exists():
        return str(read_json(path)["told"])
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


def _told(found: Audit) -> str:
    """How many probes had which verdict, with the names of those that were not resisted."""
    parts = []
    for word in ("FOOLED", "CRASH", "WARN"):
        names = [verdict.probe for verdict in found.verdicts if verdict.word == word]
        if names:
            parts.append(f"{word} {', '.join(names)}")
    resisted = sum(verdict.word == "RESISTED" for verdict in found.verdicts)
    return "; ".join([*parts, f"{resisted} probes resisted"])
