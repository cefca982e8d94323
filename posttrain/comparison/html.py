"""One self-contained report.html: what was decided, how sure that is, what it costs, and the rows behind it.

No request leaves the page (its content policy forbids it), every text from a row is escaped, and the browser of
rows is plain JavaScript over one JSON block.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from posttrain.comparison import charts, wording
from posttrain.comparison.disagreements import by_row, missed_alike
from posttrain.comparison.forecast import Forecast, forecast
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.verdict import detectable_sentence
from posttrain.evaluation.record import Attempt, Evaluation
from posttrain.runs import write_text

MOST_ROWS = 400
"""Rows in the browser; of more, a seeded draw is shown, and the page says so."""

_PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(comparison: ComparisonResult, evaluations: Sequence[Evaluation], path: Path) -> None:
    """Writes report.html.  `evaluations` are the test records of the comparison's candidates.  Raises UserError."""
    by_name = {evaluation.candidate: evaluation for evaluation in evaluations}
    ranked = [by_name[result.name] for result in comparison.ranked if result.name in by_name]
    forecasts = _forecasts(comparison)
    folder = Path(__file__).parent
    pictures = _pictures(comparison, forecasts)
    trained = {f"training{i}": result for i, result in enumerate(comparison.ranked) if f"training{i}" in pictures}
    page = _PAGE.get_template("report.html").render(
        comparison=comparison,
        wording=wording,
        pictures=pictures,
        forecasts=forecasts,
        training=trained,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        rows=_embedded(_rows(comparison, ranked)),
        missed=missed_alike([evaluation for evaluation in ranked if evaluation.score > 0]),
        slices=_shares(comparison, lambda r: {f"{s.name}, n={s.n}": s.score for s in r.evaluation.slices()}),
        parts=_shares(comparison, lambda r: r.evaluation.parts()),
        units={result.cost.unit for result in comparison.candidates if result.cost},
        limit=detectable_sentence(comparison.detectable_difference, ranked[0].n if ranked else 0),
    )
    write_text(path, page)


def _forecasts(comparison: ComparisonResult) -> dict[str, tuple[Sequence[tuple[int, float]], Forecast]]:
    """Curve and forecast of every candidate that was trained on several sizes."""
    found: dict[str, tuple[Sequence[tuple[int, float]], Forecast]] = {}
    for result in comparison.ranked:
        if len(result.learning_curve) > 1:
            curve = sorted(result.learning_curve)
            found[result.name] = curve, forecast(curve, scored_rows=result.evaluation.n, seed=comparison.seed)
    return found


def _pictures(
    comparison: ComparisonResult, forecasts: dict[str, tuple[Sequence[tuple[int, float]], Forecast]]
) -> dict[str, Markup]:
    """SVG by name; a picture that has nothing to show is left out."""
    priced = [result for result in comparison.ranked if result.cost]
    units = {result.cost.unit for result in priced if result.cost}
    drawings: dict[str, charts.Drawing] = {}
    if any(found.family == "reference" for found in comparison.comparisons):
        drawings["forest"] = lambda width: charts.forest(comparison, width)
    if len(priced) > 1 and len(units) == 1:
        drawings["cost"] = lambda width: charts.cost_against_requests(comparison, _contenders(comparison), width)
        drawings["quality"] = lambda width: charts.quality_against_cost(priced, width)
    if forecasts:
        drawings["rows"] = lambda width: charts.score_against_rows(forecasts, width)
    for i, result in enumerate(comparison.ranked):
        if charts.training(result, charts.WIDTHS["wide"]) is not None:
            drawings[f"training{i}"] = _training(result)
    return {name: Markup(charts.drawn(name, drawing)) for name, drawing in drawings.items()}


def _training(result: CandidateResult) -> charts.Drawing:
    return lambda width: charts.training(result, width)


def _contenders(comparison: ComparisonResult) -> list[CandidateResult]:
    """Whose costs are worth a line: the recommended one, the reference, and the best of each kind."""
    names = dict.fromkeys([comparison.recommendation.candidate, comparison.reference])
    for kind in ("given", "floor", "prompt", "weights"):
        of_kind = [result for result in comparison.ranked if result.kind == kind]
        names.update(dict.fromkeys(result.name for result in of_kind[: 2 if kind == "weights" else 1]))
    return [result for result in comparison.ranked if result.cost and result.name in names]


def _shares(comparison: ComparisonResult, shares: Callable[[CandidateResult], Mapping[str, float]]) -> dict[str, Any]:
    """A grid: one line a candidate, one column a share."""
    found = [(result.name, shares(result)) for result in comparison.ranked]
    return {"names": list(dict.fromkeys(name for _, each in found for name in each)), "lines": found}


def _rows(comparison: ComparisonResult, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The rows on which candidates differ; texts are pooled, because prompts repeat."""
    pool: dict[str, int] = {}

    def outcome(attempt: Attempt) -> float:
        return evaluations[0].outcome(attempt)

    differing = [attempts for attempts in by_row(evaluations) if len(set(map(outcome, attempts))) > 1]
    shown = differing
    if len(differing) > MOST_ROWS:
        chosen = sorted(random.Random(comparison.seed).sample(range(len(differing)), MOST_ROWS))
        shown = [differing[i] for i in chosen]
    rows = [
        {
            "id": attempts[0].row_id,
            "slices": attempts[0].slices,
            "text": attempts[0].text,
            "target": attempts[0].target,
            "attempts": [{"outcome": outcome(attempt)} | _attempt(attempt, pool) for attempt in attempts],
        }
        for attempts in shown
    ]
    kinds = {result.name: result.kind for result in comparison.candidates}
    return {
        "scored_by": comparison.scored_by,
        "candidates": [{"name": e.candidate, "kind": kinds[e.candidate]} for e in evaluations],
        "rows": rows,
        "differing": len(differing),
        "texts": list(pool),
    }


def _attempt(attempt: Attempt, pool: dict[str, int]) -> dict[str, Any]:
    def pooled(text: str) -> int:
        return pool.setdefault(text, len(pool))

    return {
        "answer": pooled(attempt.answer),
        "error": attempt.error,
        "messages": [[message["role"], pooled(message["content"])] for message in attempt.messages],
    }


def _embedded(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
