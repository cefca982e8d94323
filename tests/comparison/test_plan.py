"""Which candidates there are, and how time is shared among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain import graders
from posttrain.comparison.estimate import Forecast
from posttrain.comparison.plan import LEAST_TRAINING, PROMPT_SHARE, default_candidates, ordered, share
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
    assert set(left_out) == {"prompt_search", "grpo"}  # base 10 + few_shot 30 of 90
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
    assert sum(needed[name].total for name in prompts) <= seconds * PROMPT_SHARE + 1e-6
    assert weights, "one is always trained"
    if len(weights) > 1:
        assert all(given is not None and given >= min(LEAST_TRAINING * needed[name].teaching, 5.0) - 1e-6
                   for name, given in weights.items())
