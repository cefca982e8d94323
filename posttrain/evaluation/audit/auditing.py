"""The audit: every probe is tried on a few rows, and the attempt that earned most is judged on others."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.evaluation.audit.grading import Graded, graded, paying_line
from posttrain.evaluation.audit.probes import Attempt, Probe, commonest, probes
from posttrain.evaluation.audit.soundness import Fault, faults
from posttrain.evaluation.audit.verdicts import MOST_LOOKS, Verdict, Yardstick, bounds, settled, word
from posttrain.evaluation.drawing import drawn
from posttrain.types import Row, Task, UserError, target_text

ROWS = 64
"""Of a task, drawn at random, are looked at."""

GLANCED, SCREENED = 2, 6
"""Rows on which every attempt is tried, and on which those are that earned anything."""

JUDGED = 40
"""Other rows, on which the attempts that earned most are judged, in `MOST_LOOKS` parts: as few as settle it."""

FEW = 12
"""Rows: with fewer, attempts are judged on the rows on which they were chosen."""

FINALISTS = 2
"""Attempts of a probe that are judged."""


@dataclass(frozen=True)
class Audit:
    """`assumed` when no row says what is wanted, so that the wanted answers are taken to earn 1."""

    task: str
    yardstick: Yardstick
    rows: int
    assumed: bool
    verdicts: tuple[Verdict, ...]
    faults: tuple[Fault, ...]
    seconds: float = field(compare=False)

    @property
    def fooled(self) -> bool:
        return any(verdict.word == "FOOLED" for verdict in self.verdicts)


async def audit(task: Task) -> Audit:
    """What null answers earn in a task, and whether its grader is sound.  Raises UserError when it has no rows."""
    started = time.monotonic()
    rows = drawn([row for split in task.splits.values() for row in split], ROWS)
    if not rows:
        raise UserError("a task without rows cannot be audited", place=task.name, remedy="add train.jsonl")
    golds = await _golds(task, rows)
    earned = [one.reward for one in golds.values() if not one.reason]
    yardstick = Yardstick(_mean(earned, otherwise=1.0), _chance(rows))
    asked, judged, known = parted(rows)
    verdicts = [
        await _verdict(probe, task, asked, judged, yardstick) for probe in probes(known, task.output, source_of(task))
    ]
    found = await faults(task, rows, golds)
    seconds = time.monotonic() - started
    return Audit(task.name, yardstick, len(rows), not earned, tuple(verdicts), tuple(found), seconds)


def parted(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row], Sequence[Row]]:
    """Rows to screen on, to judge on, and to take other rows' answers from: no row has two uses, unless there are so
    few that all have all."""
    if len(rows) < FEW:
        return rows, rows, rows
    asked = min(SCREENED, len(rows) // 4)
    judged = min(JUDGED, len(rows) // 2)
    return rows[:asked], rows[asked : asked + judged], rows[asked + judged :]


async def _golds(task: Task, rows: Sequence[Row]) -> dict[str, Graded]:
    """What the wanted answer of each row earns, by row id."""
    wanted = [row for row in rows if row.target is not None]
    return {  # with time to load what the grader may need
        row.id: await graded(task.grader, row, target_text(row.target), 60 if number == 0 else None)
        for number, row in enumerate(wanted)
        if row.target is not None
    }


def _chance(rows: Sequence[Row]) -> float:
    """The share of rows that want the commonest answer."""
    golds = [target_text(row.target) for row in rows if row.target is not None]
    return golds.count(commonest(rows)[0]) / len(golds) if golds else 0.0


def source_of(task: Task) -> str:
    """The text of the program that grades: what it says of itself, else that of its class."""
    path = getattr(task.grader, "path", None)
    if path is not None and Path(path).is_file():
        return Path(path).read_text(encoding="utf-8", errors="replace")
    if source := getattr(task.grader, "source", ""):
        return str(source)
    try:
        return inspect.getsource(type(task.grader))
    except (OSError, TypeError):
        return ""


def _mean(values: Sequence[float], otherwise: float = 0.0) -> float:
    return math.fsum(values) / len(values) if values else otherwise


async def _verdict(
    probe: Probe, task: Task, asked: Sequence[Row], judged: Sequence[Row], yardstick: Yardstick
) -> Verdict:
    """The worst of what the probe's best attempts have shown."""
    finalists, crash = await _screened(probe, task, asked)
    found = [await _judged(probe, attempt, task, judged, yardstick) for attempt in finalists]
    worst = max(found, key=lambda verdict: (_ORDER.index(verdict.word), verdict.earned), default=None)
    if worst is None or worst.word == "RESISTED":
        return crash or worst or Verdict(probe.name, probe.told, "RESISTED", rows=len(asked))
    return worst


_ORDER = ("RESISTED", "CRASH", "WARN", "FOOLED")


async def _screened(probe: Probe, task: Task, rows: Sequence[Row]) -> tuple[list[Attempt], Verdict | None]:
    """The attempts that earned most on these rows, if anything; and how the grader failed first, if it did."""
    crash: Verdict | None = None
    earned: list[tuple[float, int, Attempt]] = []
    for number, attempt in enumerate(probe.attempts):
        rewards: list[float] = []
        for row in rows:
            if len(rewards) == GLANCED and not any(rewards):
                break
            answer = attempt.answer(row)
            one = await graded(task.grader, row, answer)
            if one.reason:
                crash = crash or _crash(probe, answer, row, one)
            rewards.append(one.reward)  # 0 where it failed: such a rollout is not learnt from
        if any(rewards):
            earned.append((_mean(rewards), -number, attempt))
    return [attempt for *_, attempt in sorted(earned, reverse=True, key=lambda one: one[:2])[:FINALISTS]], crash


async def _judged(probe: Probe, attempt: Attempt, task: Task, rows: Sequence[Row], yardstick: Yardstick) -> Verdict:
    """Of one attempt, on as many rows as settle it."""
    rewards: list[float] = []
    best: tuple[float, Row] | None = None
    failed: Verdict | None = None
    looks = MOST_LOOKS if len(rows) > JUDGED // 2 else 1
    size = math.ceil(len(rows) / looks)
    for number, row in enumerate(rows, 1):
        answer = attempt.answer(row)
        one = await graded(task.grader, row, answer)
        if one.reason:
            failed = failed or _crash(probe, answer, row, one)
            continue
        rewards.append(one.reward)
        if best is None or one.reward > best[0]:
            best = one.reward, row
        if number % size == 0 and settled(rewards, yardstick, looks):
            break
    if best is None:
        assert failed is not None
        return failed
    verdict = word(rewards, yardstick, looks, knows_gold=probe.knows_gold)
    if failed and verdict in ("RESISTED", "WARN"):
        return failed
    answer = attempt.answer(best[1])
    place = "" if verdict == "RESISTED" else await paying_line(task.grader, best[1], answer)
    return Verdict(
        probe.name,
        f"{probe.told}: {attempt.label}",
        verdict,
        _mean(rewards),
        bounds(rewards, looks),
        len(rewards),
        written(answer),
        best[1].id,
        place,
    )


def _crash(probe: Probe, answer: str, row: Row, one: Graded) -> Verdict:
    return Verdict(
        probe.name,
        probe.told,
        "CRASH",
        answer=written(answer),
        row=row.id,
        place=one.place,
        reason=written(one.reason),
    )


def written(text: str) -> str:
    """A text that any file can hold: half a character becomes its number."""
    return text.encode("utf-8", "backslashreplace").decode()
