"""What can be known to be wrong with a task before any model is asked: `posttrain check`."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from posttrain.graders.python import GraderRaised
from posttrain.tasks.findings import LEVELS, Finding, count, places, some
from posttrain.tasks.lengths import lengths
from posttrain.tasks.loading import Reading, read
from posttrain.tasks.near_duplicates import groups, normal
from posttrain.tasks.rows import plain_text
from posttrain.tasks.settings import SPLITS
from posttrain.types import Policy, RolloutError, Row, Task, target_text

MOST_PROBLEMS = 20
"""Of single rows that are listed; the rest is counted."""


def check(task: Task | str | Path, *, policy: Policy | None = None) -> list[Finding]:
    """Everything found, errors first.  With a `policy` that has tokens (no remote one), lengths are counted in its own
    and held against its context.

    Raises UserError only when there is no task to look at: no task.toml that can be read, no grader, no file of rows.
    """
    reading = Reading(task, {}, ()) if isinstance(task, Task) else read(task)
    findings = _problems(reading)
    findings += asyncio.run(_graded(reading))
    for look in (_repeated, _leaked, _labels, _targets, _size):
        findings += look(reading)
    findings += lengths(reading, policy)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _problems(reading: Reading) -> list[Finding]:
    """What could not be read."""
    problems, more = reading.problems[:MOST_PROBLEMS], len(reading.problems) - MOST_PROBLEMS
    findings = [Finding("error", problem.place, problem.message, problem.remedy) for problem in problems]
    if more > 0:
        message = f"{more:,} more errors of this kind; the last: {reading.problems[-1].message}"
        findings.append(Finding("error", reading.problems[-1].place, message, "mend those above first"))
    return findings


def _rows(reading: Reading) -> Iterator[tuple[str, Row]]:
    for split, rows in reading.task.splits.items():
        for row in rows:
            yield split, row


def _asked(row: Row) -> str:
    return "\n".join(message.content for message in row.messages)


async def _graded(reading: Reading) -> list[Finding]:
    """The gold answer scores 1, an empty one 0."""
    low, high, broken = [], [], []
    for _, row in _rows(reading):
        try:
            if row.target is not None and (await reading.task.grader.grade(row, target_text(row.target))).value < 1:
                low.append(row)
            if (await reading.task.grader.grade(row, "")).value > 0:
                high.append(row)
        except RolloutError as error:
            broken.append((row, error))
    findings = []
    if broken:
        rows, first = [row for row, _ in broken], broken[0][1]
        where = places(reading, rows)
        place, why = (first.place, first.reason) if isinstance(first, GraderRaised) else (where, first.message)
        message = f"the grader fails on {count(rows)}: {why}" + (f" (rows {where})" if place != where else "")
        findings.append(Finding("error", place, message, "mend the grader"))
    if low:
        findings.append(
            Finding(
                "error",
                places(reading, low),
                f"the wanted answer scores below 1 on {count(low)}",
                "correct the target or the grader",
            )
        )
    if high:
        findings.append(
            Finding(
                "error",
                places(reading, high),
                f"an empty answer scores above 0 on {count(high)}",
                "make the grader stricter",
            )
        )
    return findings


def _repeated(reading: Reading) -> list[Finding]:
    """The same question twice: with one answer, a duplicate; with two, a conflict."""
    same: dict[str, list[tuple[str, Row]]] = defaultdict(list)
    for split, row in _rows(reading):
        same[normal("\n".join((*row.contexts, _asked(row))))].append((split, row))
    conflicts = [found for found in same.values() if len({_wanted(row) for _, row in found}) > 1]
    findings = []
    if conflicts:
        message = f"{count(conflicts, 'question')} asked with different answers wanted"
        findings.append(
            Finding(
                "warning",
                places(reading, [row for found in conflicts for _, row in found]),
                message,
                "decide on one answer, or remove them: nobody can get both right",
            )
        )
    extra: list[Row] = []
    for found in same.values():
        seen: set[tuple[str, str]] = set()
        for split, row in found:
            if (split, _wanted(row)) in seen:
                extra.append(row)
            seen.add((split, _wanted(row)))
    if extra:
        findings.append(
            Finding(
                "warning",
                places(reading, extra),
                f"{count(extra, 'duplicate row')} within a split",
                "remove them: they count one case several times",
            )
        )
    return findings


def _wanted(row: Row) -> str:
    return "" if row.target is None else target_text(row.target)


def _leaked(reading: Reading) -> list[Finding]:
    """Rows of dev or test that stand in an earlier split as well, or nearly so."""
    found = list(_rows(reading))
    near = groups([_asked(row) for _, row in found])
    exact = [normal(_asked(row)) for _, row in found]
    findings = []
    for split, earlier in (("dev", ("train",)), ("test", ("train", "dev"))):
        seen_near = {group for group, (one, _) in zip(near, found, strict=True) if one in earlier}
        seen = {text for text, (one, _) in zip(exact, found, strict=True) if one in earlier}
        here = [(row, text, group) for (one, row), text, group in zip(found, exact, near, strict=True) if one == split]
        same = [row for row, text, _ in here if text in seen]
        alike = [row for row, text, group in here if text not in seen and group in seen_near]
        where = " or ".join(earlier)
        if same:
            message = f"{count(same)} of {split} {'is' if len(same) == 1 else 'are'} in {where} too"
            findings.append(Finding("error", places(reading, same), message, f"remove them from {where}"))
        if alike:
            message = f"{count(alike)} of {split} {'is' if len(alike) == 1 else 'are'} nearly as one in {where}"
            findings.append(
                Finding(
                    "warning",
                    places(reading, alike),
                    message,
                    "keep near-duplicates on one side, or scores are flattered",
                )
            )
    return findings


def _labels(reading: Reading) -> list[Finding]:
    """Balance of a closed set, and labels that cannot be learnt or told."""
    task, labels = reading.task, reading.task.output.labels
    counts = {
        split: Counter(_wanted(row) for row in rows if row.target is not None) for split, rows in task.splits.items()
    }
    total = sum(counts.values(), Counter[str]())
    findings = []
    if labels and total:
        label, most = total.most_common(1)[0]
        least = min(total[label] for label in labels)
        message = (
            f"{len(labels)} labels on {least:,} to {most:,} rows each; "
            f"{label!r}, the commonest, is {most / total.total():.0%} of the rows"
        )
        findings.append(Finding("note", reading.place, message))
    unseen = [label for label in labels if counts.get("train") and not counts["train"][label]]
    if unseen:
        message = f"{count(unseen, 'label')} with no row in train: {some(unseen)}"
        findings.append(Finding("warning", reading.place, message, "add rows: what is never shown cannot be taught"))
    untold = [label for label in labels if label not in task.instructions]
    if untold:
        message = f"the instructions do not name {count(untold, 'label')}: {some(untold)}"
        findings.append(
            Finding("note", reading.place, message, "name them, so that a prompted model has a fair chance")
        )
    return findings


def _targets(reading: Reading) -> list[Finding]:
    """Balance of other answers: a floor will say the commonest; fields of records one by one."""
    rows = [row for _, row in _rows(reading) if row.target is not None]
    if not rows or reading.task.output.labels:
        return []
    answer, often = Counter(map(_wanted, rows)).most_common(1)[0]
    findings = []
    if often > 1 and often >= 0.2 * len(rows):
        message = f"the commonest answer, {answer[:60]!r}, is right on {often / len(rows):.0%} of the rows"
        findings.append(Finding("note", reading.place, message))
    records = [row.target for row in rows if isinstance(row.target, Mapping)]
    for name in dict.fromkeys(name for record in records for name in record):
        values = Counter(plain_text(record.get(name)) for record in records)
        value, often = values.most_common(1)[0]
        message = f"field {name}: {count(values, 'value')}, {value[:60]} on {often / values.total():.0%} of the rows"
        findings.append(Finding("note", reading.place, message))
    return findings


def _size(reading: Reading) -> list[Finding]:
    """Splits that are not there, and how fine a difference the test split can show.

    The interval is the normal approximation's for a share of one half: +-1.96 sqrt(1 / 4n).
    """
    splits = reading.task.splits
    findings = [
        Finding(
            "warning",
            reading.place,
            f"no {split} rows",
            f"add {split}.jsonl: teaching, choosing and testing each need rows of their own",
        )
        for split in SPLITS
        if not splits.get(split) and not (split in splits and reading.problems)  # what keeps its rows out is told
    ]
    if splits.get("test"):
        sizes = ", ".join(f"{len(rows):,} {split}" for split, rows in splits.items())
        points = 196 * (0.25 / len(splits["test"])) ** 0.5
        findings.append(
            Finding(
                "note",
                reading.place,
                f"rows: {sizes}; a test score near 50 % will be known to about ±{points:.0f} points",
            )
        )
    return findings
