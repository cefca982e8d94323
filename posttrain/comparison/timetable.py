"""When each candidate's turn comes in a comparison that has a budget."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.comparison.estimate import CLOSING_SECONDS, Forecast
from posttrain.comparison.plan import LEAST_TRAINING, divide, share
from posttrain.runs import Run
from posttrain.techniques import _chain as chain
from posttrain.types import Kind


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
        room = None if left is None else max(0.0, left - CLOSING_SECONDS)
        self.deadline = None if room is None else self.run.seconds + room / self.models_to_come
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
        weights = [self.forecasts[name] for name in self._waiting("weights")]
        kept_back = sum(LEAST_TRAINING * each.teaching + each.judging for each in weights)
        if forecast.total <= self._left - kept_back:
            return ""
        del self.forecasts[expression]
        return f"left out: about {forecast.total:.0f} s, and the others took longer than expected"

    def begin(self, expression: str) -> float | None:
        """Takes a candidate from the timetable; the seconds its teaching may take (None: as long as it takes).

        Training gets its share of what is left now, whatever the plan was: with time to spare that is more than it
        needs, so that a forecast that was too low does not end it.  So does the search for a prompt, but for what the
        others are to have: a search that was thought to be short shall not be paid for by training.
        """
        weights = {name: self.forecasts[name] for name in self._waiting("weights")}
        left, own = self._left, self.forecasts.pop(expression, None)
        if left is None or own is None or chain.kind(expression) == "floor":
            return None
        if expression in weights:
            return divide(left, weights)[expression]
        return max(5.0, own.teaching, left - own.judging - (self.seconds_to_come or 0.0))

    def _waiting(self, kind: Kind) -> list[str]:
        return [name for name in self.forecasts if chain.kind(name) == kind and name not in self.left_out]
