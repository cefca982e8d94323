"""Which candidates a comparison tries when it is not told, and how a time budget is shared among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.comparison.estimate import Forecast
from posttrain.runs import Run
from posttrain.techniques import _chain as chain
from posttrain.types import Task, UserError

PROMPT_SHARE = 0.45
"""Prompting may use this share of the time, and what the first candidate that is trained leaves over."""

LEAST_TRAINING = 0.5
"""Training with less than this share of the time it needs is not worth a place in the table."""


class Timetable:
    """Who may begin and how long it may take, as time goes by.  One model after the other has its share of the time.

    Forecasts are rough, so the plan made before the start is looked at again whenever a candidate's turn comes.
    """

    def __init__(self, run: Run, models: int) -> None:
        self.run, self.models_to_come = run, max(1, models)
        self.forecasts: dict[str, Forecast] = {}  # of what has not begun yet
        self.teaching: dict[str, float | None] = {}
        self.left_out: dict[str, str] = {}
        self.deadline: float | None = None  # of this model, in seconds of the run

    def next_model(self, forecasts: Mapping[str, Forecast]) -> None:
        """Plans the candidates of the next model."""
        left = self.run.seconds_left
        self.deadline = None if left is None else self.run.seconds + left / self.models_to_come
        self.models_to_come -= 1
        self.forecasts = dict(forecasts)
        self.teaching, self.left_out = share(self._left, forecasts)

    @property
    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self.run.seconds)

    @property
    def seconds_to_come(self) -> float | None:
        """What the candidates that have not begun will take; None when nothing more will."""
        to_come = [
            forecast.judging + (forecast.teaching if (given := self.teaching.get(name)) is None else given)
            for name, forecast in self.forecasts.items()
            if name not in self.left_out
        ]
        return sum(to_come) if to_come else None

    def refusal(self, expression: str) -> str:
        """Why a candidate cannot begin now; "" when it can."""
        if expression in self.left_out:
            self.forecasts.pop(expression, None)
            return self.left_out[expression]
        forecast = self.forecasts.get(expression)
        if forecast is None or self._left is None or chain.kind(expression) != "prompt":
            return ""
        weights = [name for name in self.forecasts if chain.kind(name) == "weights" and name not in self.left_out]
        kept_back = sum(
            LEAST_TRAINING * self.forecasts[name].teaching + self.forecasts[name].judging for name in weights
        )
        if forecast.total <= self._left - kept_back:
            return ""
        del self.forecasts[expression]
        return f"left out: about {forecast.total:.0f} s, and the others took longer than expected"

    def begin(self, expression: str) -> float | None:
        """Takes a candidate from the timetable; the seconds its teaching may take (None: as long as it takes)."""
        weights = {
            name: each
            for name, each in self.forecasts.items()
            if chain.kind(name) == "weights" and name not in self.left_out
        }
        left = self._left
        self.forecasts.pop(expression, None)
        if expression not in weights or left is None:
            return self.teaching.get(expression)
        self.teaching |= share(left, weights)[0]
        others = sum(each.total for name, each in weights.items() if name != expression)
        # with time to spare a forecast that was too low may be overrun, but not the deadline
        given = self.teaching[expression]
        return given if given is not None else max(5.0, left - others - weights[expression].judging)


def default_candidates(task: Task, *, trainable: bool) -> list[str]:
    """Floors, prompts, weights: in each the most promising first, since a short budget leaves out the last ones."""
    floors = ["constant", "nearest", *(["linear"] if task.output.labels or task.output.schema else [])]
    documents = bool(task.documents)
    prompts = ["base", *(["retrieval"] if documents else []), "few_shot", "knn_few_shot", "prompt_search", "best_of"]
    weights = ["sft", *(["retrieval+sft"] if documents else [])] if trainable else []
    return [*floors, *prompts, *weights]


def ordered(expressions: Sequence[str]) -> list[str]:
    """The candidates once each, floors before prompts before weights.  Raises UserError for an unknown one."""
    if not expressions:
        raise UserError("no candidate to compare", remedy="name some with --candidates base,few_shot,sft")
    rank = {"given": 0, "floor": 1, "prompt": 2, "weights": 3}
    return sorted(dict.fromkeys(expressions), key=lambda expression: rank[chain.kind(expression)])


def share(seconds: float | None, forecasts: Mapping[str, Forecast]) -> tuple[dict[str, float | None], dict[str, str]]:
    """(seconds for teaching each candidate, None: as long as it takes; why a candidate is left out).

    Prompts are kept, in order, while their share lasts.  Weights share what then remains after everybody's judging,
    each in proportion to what it would need; the last ones are left out while none could get `LEAST_TRAINING` of that.
    Training that gets less than it needs stops early but well: its learning rate follows the clock.
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
    while weights:
        room = seconds - spent - sum(forecasts[name].judging for name in weights)
        wanted = sum(forecasts[name].teaching for name in weights)
        if len(weights) == 1 or room >= LEAST_TRAINING * wanted:
            for name in weights:
                teaching[name] = max(5.0, room * forecasts[name].teaching / wanted)
            break
        last = weights.pop()
        left_out[last] = f"left out: about {forecasts[last].total:.0f} s, more than there is time for"
    return {name: given for name, given in teaching.items() if name not in left_out}, left_out
