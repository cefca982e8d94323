"""Which candidates a comparison tries when it is not told, and how a time budget is shared among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.comparison.estimate import Forecast
from posttrain.techniques import _chain as chain
from posttrain.types import Task, UserError

PROMPT_SHARE = 0.45
"""Prompting may use this share of the time; teaching weights has the rest, which is where time buys something."""


def default_candidates(task: Task, *, trainable: bool) -> list[str]:
    """Floors first, then prompts, then weights."""
    chosen = ["constant", "nearest"]
    if task.output.labels or task.output.schema:
        chosen.append("linear")
    chosen += ["base", "few_shot", "knn_few_shot"]
    if task.documents:
        chosen.append("retrieval")
    chosen += ["prompt_search", "best_of"]
    if trainable:
        chosen.append("sft")
        if task.documents:
            chosen.append("retrieval+sft")
    return chosen


def ordered(expressions: Sequence[str]) -> list[str]:
    """The candidates once each, floors before prompts before weights.  Raises UserError for an unknown one."""
    if not expressions:
        raise UserError("no candidate to compare", remedy="name some with --candidates base,few_shot,sft")
    rank = {"given": 0, "floor": 1, "prompt": 2, "weights": 3}
    return sorted(dict.fromkeys(expressions), key=lambda expression: rank[chain.kind(expression)])


def share(seconds: float | None, forecasts: Mapping[str, Forecast]) -> tuple[dict[str, float | None], dict[str, str]]:
    """(seconds for teaching each candidate, None: as long as it takes; why a candidate is left out).

    Prompts are kept in order while their share lasts.  Weights share what remains after everybody's judging, each in
    proportion to what it would need; training stops early but well (its learning rate follows the clock).
    """
    teaching: dict[str, float | None] = dict.fromkeys(forecasts)
    if seconds is None or sum(forecast.total for forecast in forecasts.values()) <= seconds:
        return teaching, {}
    kinds = {expression: chain.kind(expression) for expression in forecasts}
    left_out: dict[str, str] = {}
    weights = [expression for expression, kind in kinds.items() if kind == "weights"]
    room = seconds * (PROMPT_SHARE if weights else 1.0)
    for expression in [expression for expression, kind in kinds.items() if kind == "prompt"]:
        forecast = forecasts[expression]
        if forecast.total <= room:
            room -= forecast.total
        else:
            left_out[expression] = f"left out: about {forecast.total:.0f} s, more than the budget has left for prompts"
            del teaching[expression]
    spent = sum(forecasts[expression].total for expression in teaching if kinds[expression] != "weights")
    judging = sum(forecasts[expression].judging for expression in weights)
    wanted = sum(forecasts[expression].teaching for expression in weights)
    for expression in weights:
        teaching[expression] = max(5.0, (seconds - spent - judging) * forecasts[expression].teaching / wanted)
    return teaching, left_out
