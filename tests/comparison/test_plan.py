"""Which candidates there are, and how time is shared among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain import graders
from posttrain.comparison.estimate import CLOSING_SECONDS, Forecast
from posttrain.comparison.plan import LEAST_TRAINING, PROMPT_SHARE, default_candidates, ordered, share
from posttrain.comparison.timetable import Timetable
from posttrain.runs import Budget, Run
from posttrain.techniques import _chain as chain
from posttrain.types import Document, Message, Output, Row, Task, UserError

ROWS = (Row("1", (Message("user", "x"),), "y"),)
TASK = Task("t", "1", "h", "Answer.", {"train": ROWS, "dev": ROWS, "test": ROWS}, graders.load("exact", {}), Output())
LABELLED = replace(TASK, output=Output(labels=("y", "z")))
DOCUMENTED = replace(LABELLED, documents=(Document("d", "t", "x"),))


@pytest.mark.parametrize("task", [TASK, LABELLED, DOCUMENTED])
@pytest.mark.parametrize("trainable", [True, False])
def test_the_default_has_floors_prompts_and_weights_in_order(task: Task, trainable: bool) -> None:
    names = default_candidates(task, trainable=trainable)
    kinds = [chain.kind(name) for name in names]
    assert {"floor", "prompt"} <= set(kinds) and ("weights" in kinds) == trainable
    assert ordered(names) == names, "and every one of them exists"
    assert ("linear" in names) == bool(task.output.labels)
    assert any("retrieval" in name for name in names) == bool(task.documents)


def test_candidates_are_ordered_once_each() -> None:
    assert ordered(["sft", "base", "constant", "sft", "retrieval+sft", "few_shot"]) == [
        "constant", "base", "few_shot", "sft", "retrieval+sft"]
    with pytest.raises(UserError, match="did you mean 'sft'"):
        ordered(["base", "sftt"])
    with pytest.raises(UserError, match="no candidate"):
        ordered([])


def forecasts(**seconds: tuple[float, float]) -> dict[str, Forecast]:
    return {name.replace("__", "+"): Forecast(*pair) for name, pair in seconds.items()}


NEEDED = forecasts(constant=(1, 1), base=(0, 10), few_shot=(20, 10), prompt_search=(100, 10), sft=(200, 10),
                   grpo=(600, 10))


def test_without_a_limit_everything_takes_its_time() -> None:
    assert share(None, NEEDED) == (dict.fromkeys(NEEDED), {})
    total = sum(forecast.total for forecast in NEEDED.values())
    assert share(total, NEEDED) == (dict.fromkeys(NEEDED), {})


def test_prompts_are_kept_in_order_while_their_share_lasts() -> None:
    given_time, left_out = share(200, NEEDED)
    assert set(left_out) == {"prompt_search", "grpo"}  # base 10 + few_shot 30 of 110
    assert "90" not in left_out["prompt_search"] and "about 110 s" in left_out["prompt_search"]
    assert given_time["few_shot"] is None and given_time["constant"] is None
    assert given_time["sft"] == pytest.approx(200 - 2 - 10 - 30 - 10)


def test_training_shares_what_remains_in_proportion() -> None:
    given_time, left_out = share(600, NEEDED)
    assert left_out == {}
    room = 600 - (2 + 10 + 30 + 110) - 20
    assert given_time["sft"] == pytest.approx(room * 200 / 800)
    assert given_time["grpo"] == pytest.approx(room * 600 / 800)


def test_only_training_has_all_the_time() -> None:
    given_time, left_out = share(100, forecasts(sft=(200, 10)))
    assert given_time == {"sft": 90} and not left_out
    assert share(6, forecasts(sft=(200, 10)))[0] == {"sft": 5.0}, "a little is always tried"
    assert share(100, forecasts(base=(0, 60)))[1] == {}, "prompts alone need not leave time for training"


@given(st.floats(1, 2000), st.lists(st.floats(0.1, 500), min_size=6, max_size=6),
       st.lists(st.floats(0.1, 50), min_size=6, max_size=6))
def test_no_plan_exceeds_the_time_by_more_than_the_least(
        seconds: float, teaching: list[float], judging: list[float]) -> None:
    needed = {name: Forecast(*pair) for name, *pair in zip(NEEDED, teaching, judging, strict=True)}
    given_time, left_out = share(seconds, needed)
    assert given_time.keys() | left_out.keys() == needed.keys() and not given_time.keys() & left_out.keys()
    assert "constant" in given_time, "floors always have a place"
    prompts = [name for name in given_time if chain.kind(name) == "prompt"]
    weights = {name: given for name, given in given_time.items() if chain.kind(name) == "weights"}
    if given_time == dict.fromkeys(needed):
        assert sum(forecast.total for forecast in needed.values()) <= seconds
        return
    room = max(seconds * PROMPT_SHARE, seconds - needed["sft"].total)
    assert sum(needed[name].total for name in prompts) <= room + 1e-6
    assert weights, "one is always trained"
    if len(weights) > 1:
        assert all(given is not None and given >= min(LEAST_TRAINING * needed[name].teaching, 5.0) - 1e-6
                   for name, given in weights.items())


class Clock:
    """Stands for time.monotonic: time goes by when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("posttrain.runs.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def timetable(folder: Path, seconds: float | None, *models: dict[str, Forecast]) -> Timetable:
    """One that has these seconds beside those of the report."""
    minutes = None if seconds is None else (seconds + CLOSING_SECONDS) / 60
    return Timetable(Run(folder, budget=Budget(minutes)), models)


def test_the_timetable_is_the_plan_while_it_holds(tmp_path: Path, clock: Clock) -> None:
    table = timetable(tmp_path, 400, NEEDED)
    assert "grpo" in table.left_out and "prompt_search" not in table.left_out
    total = table.seconds_to_come
    assert total == pytest.approx(400)
    for name in ("constant", "base", "few_shot", "prompt_search"):
        assert table.refusal(name) == ""
        seconds = table.begin(name)
        assert seconds == (None if name == "constant" else pytest.approx(max(5, NEEDED[name].teaching)))
        clock.now += NEEDED[name].total
    assert table.begin("sft") == pytest.approx(400 - 2 - 10 - 30 - 110 - 10)
    assert "left out" in table.refusal("grpo")
    assert table.seconds_to_come == pytest.approx(400 - 152), "training once more, if sft does not take all of it"
    clock.now += 400
    assert table.seconds_to_come == 0


def test_what_takes_longer_than_expected_is_not_paid_for_by_training_alone(tmp_path: Path, clock: Clock) -> None:
    table = timetable(tmp_path, 400, NEEDED)
    for name in ("constant", "base"):
        table.begin(name)
    clock.now += 150  # instead of 12
    assert table.refusal("few_shot") == ""
    table.begin("few_shot")
    clock.now += 60  # instead of 30
    assert "took longer" in table.refusal("prompt_search"), "110 of 190 would leave sft less than was planned"
    assert table.begin("sft") == pytest.approx(190 - 10), "and what is left is training's"


def test_training_keeps_most_of_what_was_planned(tmp_path: Path, clock: Clock) -> None:
    table = timetable(tmp_path, 400, NEEDED)
    table.begin("base")
    clock.now += 220  # 180 are left: few_shot's 30 would leave sft, with 10 to be judged, 140 of the 200 it needs
    assert "took longer" in table.refusal("few_shot")


def test_a_search_may_use_what_nobody_else_is_to_have(tmp_path: Path, clock: Clock) -> None:
    table = timetable(tmp_path, 1000, forecasts(few_shot=(20, 10), sft=(200, 20)))
    assert table.begin("few_shot") == pytest.approx(1000 - 10 - 220)
    table = timetable(tmp_path, 260, forecasts(few_shot=(20, 10), sft=(200, 20)))
    clock.now += 30  # of something else
    assert table.begin("few_shot") == pytest.approx(20), "what was promised"


def test_every_model_has_its_share_of_the_time(tmp_path: Path, clock: Clock) -> None:
    table = timetable(tmp_path, 600, forecasts(base=(0, 10), sft=(1000, 10)), forecasts(sft=(1000, 10)))
    assert table.seconds_to_come == pytest.approx(600)
    table.begin("base")
    clock.now += 10
    assert table.begin("sft") == pytest.approx(300 - 10 - 10)
    clock.now += 280
    table.next_model()
    assert table.begin("sft") == pytest.approx(310 - 10), "and what the one before left over"


def test_what_has_no_forecast_begins_while_there_is_time(tmp_path: Path, clock: Clock) -> None:
    """Candidates of an endpoint: each may take what is left, and none begins when nothing is."""
    table = timetable(tmp_path, 100, {})
    for seconds in (100, 40):
        assert table.refusal("few_shot") == "" and table.begin("few_shot") == pytest.approx(seconds)
        clock.now += 60
    assert table.refusal("base") == "left out: no time was left" and table.refusal("nearest") == ""
    assert table.begin("nearest") is None


def test_without_a_limit_nobody_is_refused(tmp_path: Path) -> None:
    table = timetable(tmp_path, None, NEEDED)
    for name in NEEDED:
        assert table.refusal(name) == "" and table.begin(name) is None


def test_what_is_to_come_counts_every_model_and_what_is_trained_once_more(tmp_path: Path) -> None:
    """Two more seeds, and a quarter and half of the rows: of the two that may be the best, which may take longest."""
    one, other = {"base": Forecast(0, 10, 4), "sft": Forecast(200, 10, 4)}, {"sft": Forecast(400, 20, 8)}
    again = 2.75 * 200 + 4 * 4, 2.75 * 400 + 4 * 8
    table = timetable(tmp_path, None, one, other)
    assert table.seconds_to_come == pytest.approx(10 + 210 + 420 + sum(again))
    assert timetable(tmp_path, None, one, other, other).again == pytest.approx(2 * again[1])
    assert timetable(tmp_path, 1000, one, other).seconds_to_come == pytest.approx(1000, abs=1), "within the time there is"
    for model in (one, other):
        for name in model:
            table.begin(name)
        if model is one:
            assert table.seconds_to_come == pytest.approx(420 + sum(again))
            table.next_model()
    assert table.seconds_to_come == pytest.approx(sum(again))
    assert timetable(tmp_path, None, {"constant": Forecast(1, 1)}).again == 0


def test_the_most_promising_training_has_the_time_if_half_of_what_it_needs_is_there() -> None:
    needed = forecasts(base=(0, 10), retrieval__sft=(400, 20), sft=(200, 20))
    assert share(650, needed) == (dict.fromkeys(needed), {})
    both, left_out = share(450, needed)
    assert both["retrieval+sft"] == pytest.approx(400 * 400 / 600) and not left_out
    first, left_out = share(250, needed)
    assert first["retrieval+sft"] == pytest.approx(220) and set(left_out) == {"sft"}
    second, left_out = share(150, needed)
    assert second["sft"] == pytest.approx(120) and set(left_out) == {"retrieval+sft"}
    cheapest, left_out = share(40, needed)
    assert cheapest["sft"] == pytest.approx(10) and set(left_out) == {"retrieval+sft"}
