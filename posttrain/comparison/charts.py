"""The report's pictures: altair charts rendered to inline SVG, coloured by the page (light and dark).

Every function takes a width in pixels, because a chart shrunk to a telephone cannot be read: `drawn` renders
each twice and the page shows the one that fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair
import numpy as np
import vl_convert

from posttrain.comparison.forecast import Forecast
from posttrain.comparison.results import SIMPLEST_FIRST, CandidateResult, ComparisonResult
from posttrain.comparison.wording import DEVICE_SECONDS, signed

WIDTHS = {"wide": 720, "narrow": 340}
INK, MUTED = "currentColor", "var(--muted)"
KIND_COLOUR = altair.Scale(domain=list(SIMPLEST_FIRST), range=[f"var(--{kind})" for kind in SIMPLEST_FIRST])
TIME_TICKS = {
    1e-3: "1 ms",
    1.0: "1 s",
    60.0: "1 min",
    3600.0: "1 h",
    86400.0: "1 day",
    2592000.0: "30 days",
    31536000.0: "1 year",
    315360000.0: "10 years",
}

Drawing = Callable[[int], Any]
"""A chart for a width in pixels."""


def drawn(name: str, drawing: Drawing) -> str:
    """The SVG of a chart, at both widths.  Ids are made unique, so that many can stand in one page."""
    parts = []
    for size, width in WIDTHS.items():
        chart = drawing(width).configure(
            background="transparent",
            aria=False,
            font="system-ui, sans-serif",
            autosize={"type": "fit", "contains": "padding"},
            padding={"left": 10, "right": 8, "top": 4, "bottom": 4},
        )
        chart = chart.configure_view(stroke=None).configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=INK,
            gridOpacity=0.12,
            domainColor=MUTED,
            tickColor=MUTED,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=12,
            labelLimit=170 if width > 400 else 110,
        )
        svg = vl_convert.vegalite_to_svg(chart.to_dict())
        svg = re.sub(r"\b(clip|gradient_)(\d+)\b", rf"{name}-{size}-\1\2", svg)
        parts.append(f'<div class="{size}">{svg}</div>')
    return "".join(parts)


def forest(comparison: ComparisonResult, width: int) -> Any:
    """Paired differences to the reference with their intervals, in points; the band is the margin of no worse."""
    found = [(comparison.candidate(c.a), c) for c in comparison.comparisons if c.family == "reference"]
    values: list[dict[str, Any]] = [
        {
            "name": result.name,
            "kind": result.kind,
            "difference": 100 * c.difference,
            "rank": -c.difference,
            "low": 100 * c.interval[0],
            "high": 100 * c.interval[1],
            "label": f"{signed(c.difference)} {c.word}",
        }
        for result, c in found
    ]
    names = altair.Y(
        "name:N",
        sort=altair.EncodingSortField("rank", op="min"),
        title=None,
        axis=altair.Axis(domain=False, ticks=False),
    )
    reach = max(abs(end) for value in values for end in (value["low"], value["high"]))
    scale = altair.Scale(domain=[-1.45 * reach, 1.45 * reach] if width < 400 else [-1.25 * reach, 1.25 * reach])
    colour = altair.Color("kind:N", scale=KIND_COLOUR, legend=None)
    base = altair.Chart(altair.Data(values=values)).encode(color=colour)
    title = "points against the reference"
    margin = 100 * comparison.margin
    band = (
        _chart({"low": -margin, "high": margin})
        .mark_rect(color=INK, opacity=0.1)
        .encode(x=altair.X("low:Q", scale=scale, title=title), x2="high:Q")
    )
    zero = _chart({"x": 0}).mark_rule(color=INK, opacity=0.6).encode(x=altair.X("x:Q", scale=scale))
    lines = base.mark_rule(strokeWidth=3).encode(y=names, x=altair.X("low:Q", scale=scale, title=title), x2="high:Q")
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(y=names, x=altair.X("difference:Q", scale=scale))
    words = base.mark_text(align="left", dx=7, fontSize=12, color=INK).encode(
        y=names, x=altair.X("high:Q", scale=scale), text="label:N", color=altair.value(INK)
    )
    return altair.layer(band, zero, lines, dots, words).properties(width=width, height=34 * len(values) + 50)


def cost_against_requests(comparison: ComparisonResult, results: Sequence[CandidateResult], width: int) -> Any:
    """Total cost after N requests, F + N c, on logarithmic axes; the user's volume is marked."""
    unit = next(result.cost.unit for result in results if result.cost)
    last = max(
        [1e5, *(10 * result.break_even.value for result in results if result.break_even and result.break_even.value)],
        default=1e5,
    )
    last = max(last, 20 * (comparison.volume_per_month or 0))
    requests = np.geomspace(10, last, 60)
    decades = [10.0**power for power in range(1, int(np.log10(last)) + 1)]
    values: list[dict[str, Any]] = [
        {
            "name": result.name,
            "kind": result.kind,
            "requests": float(n),
            "cost": max(1e-9, result.cost.one_off + n * result.cost.per_request),
        }
        for result in results
        if result.cost
        for n in requests
    ]
    x = altair.X(
        "requests:Q",
        scale=altair.Scale(type="log", domain=[10, last * (9 if width > 400 else 90)]),
        title="requests",
        axis=altair.Axis(format="~s", values=decades[:: 1 if width > 400 else 2], grid=False),
    )
    costs: list[float] = [value["cost"] for value in values]
    log = altair.Scale(type="log", domain=[min(costs) / 2, max(costs) * 2])
    y = altair.Y("cost:Q", scale=log, title=_cost_title("total", unit), axis=_cost_axis(unit))
    colour = altair.Color("kind:N", scale=KIND_COLOUR, legend=None)
    base = altair.Chart(altair.Data(values=values))
    lines = base.mark_line(strokeWidth=2.5).encode(x=x, y=y, color=colour, detail="name:N")
    at_end = [value for value in values if value["requests"] == float(requests[-1])]
    ends = _spread(at_end, "cost", np.log10(max(costs) / min(costs) * 4) / 250, logarithmic=True)
    labels = (
        altair.Chart(altair.Data(values=ends))
        .mark_text(align="left", dx=6, fontSize=12)
        .encode(x=x, y=altair.Y("spread:Q", scale=log), text="name:N", color=altair.value(INK))
    )
    layers = [lines, labels]
    if comparison.volume_per_month:
        volume = comparison.volume_per_month
        mark = _chart({"requests": volume, "text": f"{volume:,.0f}, a month of yours"})
        layers += [
            mark.mark_rule(color=INK, strokeDash=[4, 4]).encode(x=x),
            mark.mark_text(align="right", dx=-5, y=8, fontSize=12, color=INK).encode(x=x, text="text:N"),
        ]
    return altair.layer(*layers).properties(width=width, height=320)


def score_against_rows(curves: dict[str, tuple[Sequence[tuple[int, float]], Forecast]], width: int) -> Any:
    """Score against labelled rows as measured, and the forecast dashed."""
    measured: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    reach: list[dict[str, Any]] = []
    for i, (name, (curve, forecast)) in enumerate(curves.items()):
        measured += [{"name": name, "rows": n, "score": 100 * score} for n, score in curve]
        last = max((n for n, _ in curve), default=0)
        lines += [{"name": name, "rows": n, "score": 100 * score} for n, score in forecast.line if n >= last]
        if forecast.gain is not None and forecast.interval:
            score = dict(curve)[last]
            reach.append(
                {
                    "name": name,
                    "rows": (last + forecast.more) * (1 + 0.012 * i),
                    "low": 100 * (score + forecast.interval[0]),
                    "high": 100 * (score + forecast.interval[1]),
                }
            )
    furthest = max(value["rows"] for value in [*measured, *lines])
    x = altair.X(
        "rows:Q",
        title="labelled rows",
        scale=altair.Scale(domain=[0, 1.06 * furthest], nice=False),
        axis=altair.Axis(tickCount=8 if width > 400 else 4, grid=False),
    )
    y = altair.Y("score:Q", title="score, %", scale=altair.Scale(zero=False, nice=True), axis=altair.Axis(tickCount=6))
    colours = altair.Scale(domain=list(curves), range=[f"var(--line{i % 6})" for i in range(len(curves))])
    colour = altair.Color(
        "name:N",
        title=None,
        scale=colours,
        legend=altair.Legend(orient="top", labelColor=INK, labelFontSize=12, columns=3, columnPadding=34),
    )
    points = altair.Chart(altair.Data(values=measured))
    layers = [
        points.mark_line(strokeWidth=2.5).encode(x=x, y=y, color=colour),
        points.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour),
    ]
    if lines:
        onward = altair.Chart(altair.Data(values=lines)).mark_line(strokeDash=[5, 5])
        layers.append(onward.encode(x=x, y=y, color=colour))
    if reach:
        layers.append(
            altair.Chart(altair.Data(values=reach))
            .mark_rule(strokeWidth=2, opacity=0.6)
            .encode(x=x, y=altair.Y("low:Q"), y2="high:Q", color=colour)
        )
    return altair.layer(*layers).properties(width=width, height=300)


def quality_against_cost(results: Sequence[CandidateResult], width: int) -> Any:
    """Score against cost per 1,000 requests: up and to the left is better."""
    unit = next(result.cost.unit for result in results if result.cost)
    values: list[dict[str, Any]] = [
        {
            "name": result.name,
            "kind": result.kind,
            "cost": max(1e-6, 1000 * result.cost.per_request),
            "score": 100 * result.score,
            "low": 100 * result.evaluation.interval[0],
            "high": 100 * result.evaluation.interval[1],
        }
        for result in results
        if result.cost
    ]
    costs = [value["cost"] for value in values]
    domain = [min(costs) / 2, max(costs) * (8 if width > 400 else 60)]
    x = altair.X(
        "cost:Q",
        scale=altair.Scale(type="log", domain=domain),
        title=_cost_title("per 1,000 requests", unit),
        axis=_cost_axis(unit, grid=False),
    )
    colour = altair.Color("kind:N", scale=KIND_COLOUR, legend=None)
    base = altair.Chart(altair.Data(values=values)).encode(x=x, color=colour)
    y = altair.Y("score:Q", title="score, %")
    bars = base.mark_rule(opacity=0.4, strokeWidth=2).encode(y=altair.Y("low:Q"), y2="high:Q")
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(y=y)
    label_decades = 120 / width * float(np.log10(domain[1] / domain[0]))
    spread = altair.Chart(altair.Data(values=_spread(values, "score", 85 / 250, beside=("cost", label_decades))))
    leaders = spread.mark_rule(opacity=0.25).encode(x=x, y=altair.Y("score:Q"), y2="spread:Q", color=altair.value(INK))
    labels = spread.mark_text(align="left", dx=9, fontSize=12).encode(
        x=x, y=altair.Y("spread:Q"), text="name:N", color=altair.value(INK)
    )
    return altair.layer(leaders, bars, dots, labels).properties(width=width, height=320)


def training(result: CandidateResult, width: int) -> Any:
    """What training logged, one small panel a number (loss, score on dev, reward ...) of each link of the chain."""
    links: dict[str, list[Mapping[str, Any]]] = {}
    for record in result.curves:
        links.setdefault(record.get("technique", ""), []).append(record)
    panels = [
        _panel(values, f"{link}: {name}" if len(links) > 1 else name, width)
        for link, records in links.items()
        for name, values in _numbers(records)[:6]
    ]
    return altair.concat(*panels, columns=2 if width > 400 else 1) if panels else None


def _numbers(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(what was logged, its values by step) for every number that was logged more than once."""
    names = dict.fromkeys(key for record in records for key in record)
    found = []
    for name in names:
        values = [
            {"step": record.get("step", i), "value": record[name]}
            for i, record in enumerate(records)
            if isinstance(record.get(name), int | float) and np.isfinite(record[name])
        ]
        if len(values) > 1 and name not in ("step", "schema", "seconds", "epoch"):
            found.append((name, values))
    return found


def _panel(values: list[dict[str, Any]], title: str, width: int) -> Any:
    line = altair.Chart(altair.Data(values=values)).mark_line(color="var(--weights)", strokeWidth=2)
    return line.encode(
        x=altair.X("step:Q", title="step", axis=altair.Axis(tickCount=4)),
        y=altair.Y(
            "value:Q", title=title.replace("_", " "), scale=altair.Scale(zero=False), axis=altair.Axis(tickCount=4)
        ),
    ).properties(width=200 if width > 400 else 250, height=110)


def _chart(value: dict[str, Any]) -> Any:
    return altair.Chart(altair.Data(values=[value]))


def _cost_title(what: str, unit: str) -> str:
    return f"{what}, {'busy device time' if unit == DEVICE_SECONDS else unit}"


def _cost_axis(unit: str, grid: bool = True) -> altair.Axis:
    if unit != DEVICE_SECONDS:
        return altair.Axis(format="~s", tickCount=6, grid=grid)
    names = " : ".join(f"datum.value == {value:g} ? '{text}'" for value, text in TIME_TICKS.items())
    return altair.Axis(values=list(TIME_TICKS), labelExpr=f"{names} : ''", grid=grid)


def _spread(
    values: Sequence[dict[str, Any]],
    field: str,
    per_pixel: float,
    *,
    logarithmic: bool = False,
    beside: tuple[str, float] | None = None,
) -> list[dict[str, Any]]:
    """The same values with `spread`: `field` pushed up where labels 14 pixels high would overlap.

    `per_pixel` is the height of a pixel on the axis (in decades, when `logarithmic`).  `beside` is (another field, how
    many of its decades a label is long): labels farther apart than that do not overlap.
    """
    placed: list[tuple[float, dict[str, Any]]] = []
    for value in sorted(values, key=lambda one: one[field]):
        position = float(np.log10(value[field])) if logarithmic else value[field]
        for taken, other in sorted(placed, key=lambda pair: pair[0]):
            near = beside is None or abs(np.log10(value[beside[0]] / other[beside[0]])) < beside[1]
            if near and taken - 14 * per_pixel < position < taken + 14 * per_pixel:
                position = taken + 14 * per_pixel
        placed.append((position, value))
    return [{**value, "spread": 10**position if logarithmic else position} for position, value in placed]
