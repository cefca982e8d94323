"""The comparison as Markdown: a short table for a README, the verdict, and which run it comes from.

What `posttrain show RUN --markdown` prints is pasted as it is; nothing has to be copied by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posttrain.comparison import wording
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.table import training_runs
from posttrain.comparison.wording import DEVICE_SECONDS, NOTHING

FREE_SECONDS = 0.05
"""What took less, once, is shown as nothing: choosing to retrieve, or writing no examples, is no work."""

Cell = Callable[[CandidateResult], str]


def document(comparison: ComparisonResult, config: Mapping[str, Any]) -> str:
    """The table, the verdict in a quotation, and the run it comes from.  `config` is the run's config.json."""
    return f"{table(comparison)}\n\n> {_escaped(comparison.recommendation.reason)}\n\n{_source(comparison, config)}"


def table(comparison: ComparisonResult) -> str:
    """A GitHub table of the candidates, best first, the recommended one bold."""
    columns = _columns(comparison)
    lines = [[heading for heading, _ in columns], ["---"] * len(columns)]
    lines += [[cell(result) for _, cell in columns] for result in comparison.ranked]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _columns(comparison: ComparisonResult) -> list[tuple[str, Cell]]:
    """Headings and cells; a column in which nothing would stand is left out."""
    columns: list[tuple[str, Cell]] = [
        ("candidate", lambda r: _marked(comparison, r, _escaped(r.name))),
        ("", lambda r: _escaped(r.label)),
        (f"{comparison.scored_by} (95 %)", lambda r: _score(comparison, r)),
    ]
    if comparison.reference is not None:
        against = "against yours" if comparison.yours else "against the best prompt"
        columns.append((against, lambda r: _difference(comparison, r)))
    if any(result.evaluation.valid_rate is not None for result in comparison.candidates):
        columns.append(("valid output", lambda r: wording.percent(r.evaluation.valid_rate)))
    if any(result.latency for result in comparison.candidates):
        columns.append(("p95 alone / under 8 users", _latency))
    if any(result.cost for result in comparison.candidates):
        columns += [("per 1,000 requests", _thousand), ("once", _once)]
    return columns


def _marked(comparison: ComparisonResult, result: CandidateResult, text: str) -> str:
    return f"**{text}**" if result.name == comparison.recommendation.candidate else text


def _score(comparison: ComparisonResult, result: CandidateResult) -> str:
    share = _marked(comparison, result, wording.percent(result.score))
    failed = f", {wording.percent(result.evaluation.error_rate)} failed" if result.evaluation.error_rate else ""
    return f"{share} ({wording.span(result.evaluation.interval)}){failed}"


def _difference(comparison: ComparisonResult, result: CandidateResult) -> str:
    found = comparison.against_reference(result.name)
    if found is None:
        return "reference" if result.name == comparison.reference else NOTHING
    return found.word if found.word == "cannot tell" else f"{wording.signed(found.difference)} {found.word}"


def _latency(result: CandidateResult) -> str:
    latency = result.latency
    return f"{_seconds(latency.p95)} / {_seconds(latency.p95_under_8)}" if latency else NOTHING


def _seconds(seconds: float | None) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds is not None and seconds < 0.1 else wording.duration(seconds)


def _thousand(result: CandidateResult) -> str:
    return wording.amount(result.cost.per_request * 1000, result.cost.unit) if result.cost else NOTHING


def _once(result: CandidateResult) -> str:
    cost = result.cost
    if cost is None or (cost.unit == DEVICE_SECONDS and cost.one_off < FREE_SECONDS):
        return NOTHING
    return _seconds(cost.one_off) if cost.unit == DEVICE_SECONDS else wording.amount(cost.one_off, cost.unit)


def _source(comparison: ComparisonResult, config: Mapping[str, Any]) -> str:
    """Which run it was: enough to find it, and to do it again."""
    date, commit, minutes = config.get("date"), config.get("commit"), config.get("minutes")
    parts = [
        f"Run `{Path(comparison.run).name}`{f' of {date}' if date else ''}",
        f"commit {commit}" if commit else "",
        f"model {_escaped(comparison.model)}" if comparison.model else "no language model",
        f"{comparison.ranked[0].evaluation.n} test rows",
        f"`--minutes {minutes:g}`" if minutes else "",
        f"seed {comparison.seed}",
        f"took {wording.duration(comparison.actual_seconds)}",
    ]
    return " ".join([f"{', '.join(filter(None, parts))}.", *map(_escaped, training_runs(comparison))])


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line: names come from files and endpoints."""
    plain = re.sub(r"([\\`*<>\[\]|~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", plain)  # within a word an underscore is one
