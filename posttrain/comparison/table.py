"""The table on the terminal: a row as each candidate finishes, then the whole one in decision order.

Everything fits 112 columns; on a narrower terminal the final table is cut into two, quality and cost, so that no
column is lost.  Labels are whole where there is room for them beside the other columns, as in 120 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from posttrain.comparison import wording
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.wording import DEVICE_SECONDS, NOTHING
from posttrain.types import ScoredBy

WIDE = 112
NARROWEST = 22  # of names and labels
LEAST_SHOWN = 0.01  # seconds of teaching; less is none
COLOURS = {"better": "green", "no worse": "cyan", "cannot tell": "yellow", "worse": "red"}


@dataclass(frozen=True)
class Column:
    """A column of the final table: its heading and its cell, up to two lines of rich markup."""

    heading: str
    cell: Callable[[ComparisonResult, CandidateResult], str]
    width: int
    justify: Literal["left", "right"] = "left"


def header(scored_by: ScoredBy, width: int = WIDE) -> Text:
    """The heading over the rows that `row` prints."""
    label = _label_beside_numbers(width)
    return Text(
        f"{'candidate':<22} {'':<{label}} {scored_by:>6} {'95 %':>7} {'valid':>6} {'teaching':>8} {'left':>8}",
        style="bold",
    )


def row(result: CandidateResult, *, seconds_left: float | None = None, width: int = WIDE) -> Text:
    """One line for a candidate that has just finished, in fixed columns; no wider than `width` from 80 on."""
    label = _label_beside_numbers(width)
    evaluation = result.evaluation
    seconds = result.training_seconds + result.search_seconds
    teaching = wording.duration(seconds) if seconds >= LEAST_SHOWN else NOTHING
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{_cut(result.name, 22):<22} ", style="bold" if result.kind in ("weights", "given") else "")
    line.append(f"{_cut(result.label, label):<{label}} ", style="dim")
    line.append(f"{wording.percent(evaluation.score):>6} ", style="bold")
    line.append(f"{wording.span(evaluation.interval):>7} {wording.percent(evaluation.valid_rate):>6} ")
    line.append(f"{teaching:>8} {wording.duration(seconds_left):>8}", style="dim")
    if evaluation.error_rate:
        line.append(f"  {wording.percent(evaluation.error_rate)} failed", style="red")
    return line


def _label_beside_numbers(width: int) -> int:
    """Columns for the label of a row that has just finished: more than 34 on a wide terminal alone."""
    return max(0, min(width - 67, 34 + max(0, width - WIDE), 60))


def final(comparison: ComparisonResult, *, width: int = WIDE) -> RenderableType:
    """The table of the comparison, best test score first, with the lines that say how to read it."""
    columns = _columns(comparison)
    tables = [columns] if width >= WIDE else [columns[:4], columns[4:]]
    tables = [[_named(comparison, each, width), *each] for each in tables]
    legend = Text("\n".join(_legend(comparison)), style="dim")
    return _spaced(*(_table(comparison, each) for each in tables), legend)


def everything(comparison: ComparisonResult) -> RenderableType:
    """What the first table leaves out: tokens, training, seeds, parts, slices.  Behind `posttrain show --all`."""
    more = [
        Column("candidate", _bare_name, 22),
        Column("dev", lambda _, r: wording.percent(r.dev_score), 5, "right"),
        Column(
            "tokens\nin, out",
            lambda _, r: f"{r.evaluation.prompt_tokens:.0f},\n{r.evaluation.completion_tokens:.0f}",
            8,
            "right",
        ),
        Column("p50\nalone", lambda _, r: wording.duration(r.latency.p50 if r.latency else None), 7, "right"),
        Column(
            "search,\ntraining",
            lambda _, r: f"{wording.duration(r.search_seconds)},\n{wording.duration(r.training_seconds)}",
            9,
            "right",
        ),
        Column(
            "tokens\ntrained", lambda _, r: wording.count(r.trained_tokens) if r.trained_tokens else NOTHING, 9, "right"
        ),
        Column("training\nruns", _runs, 14),
        Column("failed", lambda _, r: wording.percent(r.evaluation.error_rate), 6, "right"),
    ]
    return _spaced(_table(comparison, more), *_shares(comparison), _tests(comparison))


def _spaced(*parts: RenderableType) -> Group:
    return Group(*(line for part in parts for line in (part, Text())))


def _columns(comparison: ComparisonResult) -> list[Column]:
    against = "yours" if comparison.yours else _cut(comparison.reference or NOTHING, 15)
    return [
        Column(
            comparison.scored_by,
            lambda _, r: f"[bold]{wording.percent(r.score)}[/]\n{wording.span(r.evaluation.interval)}",
            6,
            "right",
        ),
        Column(f"against\n{escape(against)}", _difference, 15),
        Column("worst\nslice", _worst, 12),
        Column("valid\noutput", lambda _, r: wording.percent(r.evaluation.valid_rate), 6, "right"),
        Column("p95 alone\nunder 8", _latency, 9, "right"),
        Column(
            "per 1,000\nrequests",
            lambda _, r: wording.amount(r.cost.per_request * 1000, r.cost.unit) if r.cost else NOTHING,
            9,
            "right",
        ),
        Column("once", lambda _, r: wording.amount(r.cost.one_off, r.cost.unit) if r.cost else NOTHING, 7, "right"),
        Column("breaks\neven", _break_even, 11),
        Column("when a fact\nchanges", lambda _, r: escape(r.update_rule or NOTHING), 12),
    ]


def _table(comparison: ComparisonResult, columns: Sequence[Column]) -> Table:
    table = _empty()
    for i, column in enumerate(columns):
        table.add_column(column.heading, justify=column.justify, max_width=column.width, no_wrap=i == 0)
    for result in comparison.ranked:
        table.add_row(*(column.cell(comparison, result) for column in columns))
    return table


def _empty() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, show_footer=False)


def _bare_name(comparison: ComparisonResult, result: CandidateResult) -> str:
    mark = "[bold green]▸[/]" if result.name == comparison.recommendation.candidate else ""
    return f"{mark}[bold]{escape(result.name)}[/]"


def _named(comparison: ComparisonResult, others: Sequence[Column], width: int) -> Column:
    """The column of names and labels: as wide as they are, as far as the others leave room for that."""
    several = len({result.model for result in comparison.candidates if result.model}) > 1

    def label(result: CandidateResult) -> str:
        return f"{result.label}, {result.model}" if several and result.model else result.label

    wanted = max(max(len(result.name) + 1, len(label(result))) for result in comparison.candidates)
    room = width - sum(_width(comparison, column) + 1 for column in others)
    shown = max(NARROWEST, min(wanted, room))
    return Column("candidate", lambda c, r: f"{_bare_name(c, r)}\n[dim]{escape(_cut(label(r), shown))}[/]", shown)


def _width(comparison: ComparisonResult, column: Column) -> int:
    """Of what stands in a column."""
    cells = [column.heading, *(column.cell(comparison, result) for result in comparison.candidates)]
    lines = [line for cell in cells for line in Text.from_markup(cell).plain.split("\n")]
    return min(column.width, max(map(len, lines)))


def _difference(comparison: ComparisonResult, result: CandidateResult) -> str:
    found = comparison.against_reference(result.name)
    if found is None:
        return "[dim]reference[/]" if result.name == comparison.reference else NOTHING
    return (
        f"{wording.signed(found.difference)} [{COLOURS[found.word]}]{found.word}[/]\n"
        f"[dim]{wording.signed_span(found.interval)}[/]"
    )


def _worst(_: ComparisonResult, result: CandidateResult) -> str:
    worst = result.evaluation.worst_slice()
    if worst is None:
        return NOTHING
    return f"{wording.percent(worst.score)} n={worst.n}\n[dim]{escape(_cut(worst.name, 12))}[/]"


def _latency(_: ComparisonResult, result: CandidateResult) -> str:
    latency = result.latency
    return NOTHING if latency is None else f"{wording.duration(latency.p95)}\n{wording.duration(latency.p95_under_8)}"


def _break_even(comparison: ComparisonResult, result: CandidateResult) -> str:
    if result.break_even is None:
        return "[dim]reference[/]" if result.name == comparison.reference else NOTHING
    verdict = result.break_even.verdict.split(":")[0]
    if result.payback is not None and result.payback.value is not None:
        more = result.payback.verdict
    else:
        ends = result.break_even.interval
        more = f"{wording.count(ends[0])} to {wording.count(ends[1])}" if ends else ""
    return f"{escape(verdict)}\n[dim]{more}[/]" if more else escape(verdict)


def _runs(_: ComparisonResult, result: CandidateResult) -> str:
    if result.kind != "weights":
        return NOTHING
    if result.training_runs <= 1:
        return "one training\nrun"
    learnt = len(result.seed_scores)
    runs = f"{learnt} of {result.training_runs} learnt" if learnt < result.training_runs else f"{learnt} runs"
    return f"{runs}:\n{', '.join(f'{100 * score:.0f}' for score in result.seed_scores)}"


def training_runs(comparison: ComparisonResult) -> list[str]:
    """How often was trained what is in the table: one training run is called one, and one in vain is not hidden."""
    trained = [result for result in comparison.ranked if result.kind == "weights"]
    single = [result.name for result in trained if result.training_runs <= 1]
    lines = [f"One training run: {', '.join(single)}."] if single else []
    for result in trained:
        learnt, runs = len(result.seed_scores), result.training_runs
        scores = f"{', '.join(f'{100 * score:.0f}' for score in result.seed_scores)} %"
        if runs > 1 and learnt < runs:
            lines.append(f"{learnt} of {runs} training runs of {result.name} learnt something: {scores}.")
        elif runs > 1:
            lines.append(f"{runs} training runs of {result.name}: {scores}.")
    return lines


def _legend(comparison: ComparisonResult) -> list[str]:
    score = (
        "Right: the share of rows wholly right" if comparison.scored_by == "right" else "Grade: the mean grade of a row"
    )
    lines = [f"{score}, with its 95 % interval. Differences are paired; words hold after Holm's adjustment."]
    lines += [f"Model: {comparison.model}.", *training_runs(comparison)] if comparison.model else []
    if comparison.ceiling is not None and comparison.scored_by == "right":
        lines.append(
            f"Ceiling: independent labellers agree with the gold answer on "
            f"{wording.percent(comparison.ceiling)} of rows."
        )
    if any(r.cost and r.cost.unit == DEVICE_SECONDS for r in comparison.candidates):
        lines.append("Costs are busy seconds of this device; state prices to see money.")
    if comparison.volume_per_month:
        lines.append(f"Months are those of {comparison.volume_per_month:,.0f} requests.")
    lines.append(f"The test split has been used {wording.uses(comparison.test_uses)}.")
    return lines + comparison.suspicions


def _shares(comparison: ComparisonResult) -> list[Table]:
    """Parts of the score and slices: one line a candidate, seven columns a table."""
    shares = [
        {
            **{f"{name}": value for name, value in result.evaluation.parts().items()},
            **{f"{part.name}\nn={part.n}": part.score for part in result.evaluation.slices()},
        }
        for result in comparison.ranked
    ]
    names = list(dict.fromkeys(name for each in shares for name in each))
    tables = []
    for start in range(0, len(names), 7):
        table = _empty()
        table.add_column("candidate", no_wrap=True)
        for name in names[start : start + 7]:
            table.add_column(escape(name), justify="right", max_width=14)
        for result, each in zip(comparison.ranked, shares, strict=True):
            cells = (wording.percent(each.get(name)) for name in names[start : start + 7])
            table.add_row(_bare_name(comparison, result), *cells)
        tables.append(table)
    return tables


def _tests(comparison: ComparisonResult) -> Table:
    table = _empty()
    for heading in ("best on dev", "against", "points", "95 %", "p", "adjusted", ""):
        table.add_column(heading)
    for found in comparison.comparisons:
        if found.family == "winner":
            table.add_row(
                escape(found.a),
                escape(found.b),
                wording.signed(found.difference),
                wording.signed_span(found.interval),
                f"{found.p_value:.2g}",
                f"{found.p_value_adjusted:.2g}",
                f"[{COLOURS[found.word]}]{found.word}[/]",
            )
    return table


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…" if width else ""
