"""When each candidate's turn comes in a comparison, and how long everything takes that is still to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.comparison.bench import CURVE_SHARES, MORE_SEEDS
from posttrain.comparison.estimate import CLOSING_SECONDS, Forecast
from posttrain.comparison.plan import divide, share
from posttrain.runs import Run
from posttrain.techniques import _chain as chain
from posttrain.types import Kind

REPEATED = 2
"""How many of the best taught candidates are trained again with other seeds, while there is time."""

PROMISED = 0.8
"""Of the time that the plan gave training so much stays its own, when prompts take longer than was expected: what comes
last would else pay for all of them."""


class Timetable:
    """Who may begin and how long it may take, as time goes by.  One model after the other has its share of the time.

    Forecasts are rough, so the plan made before the start is looked at again whenever a candidate's turn comes.  Where
    there is none, as for endpoints, a candidate begins while there is time, and may be taught for all that is left.
    """

    def __init__(self, run: Run, models: Sequence[Mapping[str, Forecast]]) -> None:
        """`models`: for each, the forecasts of its candidates.  The first one has its turn."""
        self.run, self.models = run, list(models)  # to come
        self.again = _again([each[name] for each in models for name in each if chain.kind(name) == "weights"])
        self.next_model()

    def next_model(self) -> None:
        """Plans the candidates of the next model."""
        left = self._seconds_left
        self.deadline = None if left is None else self.run.seconds + left / len(self.models)  # in seconds of the run
        self.forecasts = dict(self.models.pop(0))  # of what has not begun yet
        self.teaching, self.left_out = share(self._left, self.forecasts)

    @property
    def _seconds_left(self) -> float | None:
        """For everything but the report."""
        left = self.run.seconds_left
        return None if left is None else max(0.0, left - CLOSING_SECONDS)

    @property
    def _left(self) -> float | None:
        """For this model."""
        return None if self.deadline is None else max(0.0, self.deadline - self.run.seconds)

    @property
    def _of_this_model(self) -> float:
        """What its candidates that have not begun will take."""
        return sum(
            forecast.judging + (forecast.teaching if (given := self.teaching.get(name)) is None else given)
            for name, forecast in self.forecasts.items()
            if name not in self.left_out
        )

    @property
    def seconds_to_come(self) -> float | None:
        """What has not begun will take, as far as there is time: the models to come and training once more included.
        None when nothing more will."""
        of_others = sum(forecast.total for each in self.models for forecast in each.values())
        to_come, left = self._of_this_model + of_others + self.again, self._seconds_left
        return (to_come if left is None else min(left, to_come)) if to_come else None

    def refusal(self, expression: str) -> str:
        """Why a candidate cannot begin now; "" when it can."""
        if expression in self.left_out:
            self.forecasts.pop(expression, None)
            return self.left_out[expression]
        forecast = self.forecasts.get(expression)
        if self._left is None or chain.kind(expression) != "prompt":
            return ""
        if forecast is None:
            return "" if self._left > 0 else "left out: no time was left"
        weights = self._waiting("weights")
        kept_back = sum(PROMISED * self._planned(name) + self.forecasts[name].judging for name in weights)
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
        if left is None or chain.kind(expression) == "floor":
            return None
        if own is None:
            return left
        if expression in weights:
            return divide(left, weights)[expression]
        return max(5.0, own.teaching, left - own.judging - self._of_this_model)

    def _planned(self, name: str) -> float:
        """Seconds for teaching that the plan gave a candidate, as far as it needs them."""
        needed, given = self.forecasts[name].teaching, self.teaching.get(name)
        return needed if given is None else min(needed, given)

    def _waiting(self, kind: Kind) -> list[str]:
        return [name for name in self.forecasts if chain.kind(name) == kind and name not in self.left_out]


def _again(trained: Sequence[Forecast]) -> float:
    """Seconds for more seeds and learning curves of the best, which may be those that take longest."""
    runs, sizes = MORE_SEEDS + sum(CURVE_SHARES), MORE_SEEDS + len(CURVE_SHARES)
    return sum(sorted((runs * each.teaching + sizes * each.testing for each in trained), reverse=True)[:REPEATED])
