"""Which candidates a comparison tries when it is not told, and how a time budget is shared among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.comparison.estimate import Forecast
from posttrain.techniques import _chain as chain
from posttrain.types import Task, UserError

PROMPT_SHARE = 0.55
"""Prompting may use this share of the time, and what the first candidate that is trained leaves over."""

LEAST_TRAINING = 0.5
"""Training with less than this share of the time it needs is not worth a place in the table."""


def default_candidates(task: Task, *, trainable: bool) -> list[str]:
    """Floors, prompts, weights: in each the most promising first, since a short budget leaves out the last ones."""
    floors = ["constant", "nearest", *(["linear"] if task.output.labels or task.output.schema else [])]
    documents = bool(task.documents)
    prompts = ["base", *(["retrieval"] if documents else []), "few_shot", "knn_few_shot", "prompt_search", "best_of"]
    weights = [*(["retrieval+sft"] if documents else []), "sft"] if trainable else []
    return [*floors, *prompts, *weights]


def ordered(expressions: Sequence[str]) -> list[str]:
    """The candidates once each, floors before prompts before weights.  Raises UserError for an unknown one."""
    if not expressions:
        raise UserError("no candidate to compare", remedy="name some with --candidates base,few_shot,sft")
    rank = {"given": 0, "floor": 1, "prompt": 2, "weights": 3}
    return sorted(dict.fromkeys(expressions), key=lambda expression: rank[chain.kind(expression)])


def share(seconds: float | None, forecasts: Mapping[str, Forecast]) -> tuple[dict[str, float | None], dict[str, str]]:
    """(seconds for teaching each candidate, None: as long as it takes; why a candidate is left out).

    Prompts are kept, in order, while their share lasts.  Weights divide what then remains after everybody's judging,
    in proportion to what each needs: as many of them, the most promising first, as get `LEAST_TRAINING` of that; else
    one that does; else the cheapest.  Training that gets less than it needs stops early but well: its learning rate
    follows the clock.
    """
    teaching: dict[str, float | None] = dict.fromkeys(forecasts)
    if seconds is None or sum(forecast.total for forecast in forecasts.values()) <= seconds:
        return teaching, {}
    kinds = {expression: chain.kind(expression) for expression in forecasts}
    weights = [expression for expression, kind in kinds.items() if kind == "weights"]
    left_out: dict[str, str] = {}
    room = seconds if not weights else max(PROMPT_SHARE * seconds, seconds - forecasts[weights[0]].total)
    for expression in [expression for expression, kind in kinds.items() if kind == "prompt"]:
        needed = forecasts[expression].total
        if needed > room:
            left_out[expression] = f"left out: about {needed:.0f} s, and {room:.0f} s were left for prompts"
        else:
            room -= needed
    spent = sum(forecasts[name].total for name in forecasts if kinds[name] != "weights" and name not in left_out)
    room = seconds - spent
    firsts = [weights[:count] for count in range(len(weights), 0, -1)]
    enough = (some for some in [*firsts, *([name] for name in weights)] if _get_enough(some, room, forecasts))
    trained = next(enough, [min(weights, key=lambda name: forecasts[name].total)] if weights else [])
    for name in weights:
        if name not in trained:
            left_out[name] = f"left out: about {forecasts[name].total:.0f} s, more than there is time for"
    teaching |= divide(room, {name: forecasts[name] for name in trained})
    return {name: given for name, given in teaching.items() if name not in left_out}, left_out


def divide(room: float, forecasts: Mapping[str, Forecast]) -> dict[str, float]:
    """Seconds for teaching each, in proportion to what it needs; all are judged within `room` seconds too."""
    wanted = sum(forecast.teaching for forecast in forecasts.values())
    left = room - sum(forecast.judging for forecast in forecasts.values())
    return {name: max(5.0, left * forecast.teaching / wanted) for name, forecast in forecasts.items()}


def _get_enough(names: Sequence[str], room: float, forecasts: Mapping[str, Forecast]) -> bool:
    given = divide(room, {name: forecasts[name] for name in names})
    return all(given[name] >= LEAST_TRAINING * forecasts[name].teaching for name in names)
