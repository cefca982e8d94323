"""The comparison as Markdown: a table for a README, the verdict, and which run it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.comparison import wording
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.wording import NOTHING


def table(comparison: ComparisonResult) -> str:
    """A GitHub table of the candidates, best first, the recommended one bold."""
    own = comparison.reference is not None and comparison.candidate(comparison.reference).kind == "given"
    against = "yours" if own else "the best prompt"
    heading = ("candidate", "", "right (95 %)", f"against {against}", "p95 alone / under 8 users", "once")
    rows = [_row(comparison, result) for result in comparison.ranked]
    return "\n".join(map(_line, [heading, ("---",) * len(heading), *rows]))


def document(comparison: ComparisonResult, config: Mapping[str, Any]) -> str:
    """The table, the verdict in a quotation, and the run it comes from.  `config` is the run's config.json."""
    recommendation = comparison.recommendation
    once = {result.training_runs for result in comparison.candidates if result.kind == "weights"} <= {1}
    source = [
        f"Run `{Path(comparison.run).name}`",
        f"commit {commit[:9]}" if (commit := config.get("commit")) else "",
        comparison.model,
        f"seed {comparison.seed}",
        "one training run" if once else "",
        f"took {wording.duration(comparison.actual_seconds)}",
    ]
    return "\n\n".join(
        [
            table(comparison),
            f"> {recommendation.reason}",
            f"{', '.join(filter(None, source))}.",
        ]
    )


def _row(comparison: ComparisonResult, result: CandidateResult) -> tuple[str, ...]:
    chosen = "**" if result.name == comparison.recommendation.candidate else ""
    right = f"{chosen}{wording.percent(result.score)}{chosen} ({wording.span(result.evaluation.interval)})"
    found, latency = comparison.against_reference(result.name), result.latency
    if found is not None:
        against = f"{wording.signed(found.difference)} {found.word}"
    else:
        against = "reference" if result.name == comparison.reference else NOTHING
    waiting = (
        f"{wording.duration(latency.p95)} / {wording.duration(latency.p95_under_8)}" if latency is not None else NOTHING
    )
    spent = result.training_seconds + result.search_seconds
    # choosing to retrieve, or writing no examples, is no work
    once = wording.duration(spent) if spent >= 0.001 else NOTHING
    return f"{chosen}{result.name}{chosen}", result.label, right, against, waiting, once


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
