"""The forecast before a comparison: what it is made of, and that its calibration leaves nothing behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from small_comparison import reviews

from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.estimate import BESIDE_OTHERS, Forecast, Speed, calibrate, forecast
from posttrain.comparison.latency import ROWS, WARM_UP
from posttrain.engines.toy import ToyPolicy
from posttrain.evaluation.drawing import drawn
from posttrain.types import Message, Row, Task

TASK = reviews()
SPEED = Speed(read=0.001, write=0.1, alone=0.5, train=0.002, memory_bytes=1)


def start(task: Task = TASK) -> PolicyCandidate:
    return PolicyCandidate.of("toy", ToyPolicy.open_for(task), task)


def forecast_of(expression: str, *, latency: bool = True, speed: Speed = SPEED, task: Task = TASK) -> Forecast:
    return asyncio.run(forecast(expression, start(task), task, speed, latency=latency))


def retargeted(task: Task, target: str | None, *, rows: slice = slice(None)) -> Task:
    train = list(task.rows("train"))
    train[rows] = [replace(row, target=target) for row in train[rows]]
    return replace(task, splits={**task.splits, "train": tuple(train)})


def test_judging_pays_for_every_request_whose_latency_is_measured() -> None:
    """20 alone and 20 by 8 users at once, who are served a little faster than one after the other."""
    judged = forecast_of("base", latency=False).judging
    timed = forecast_of("base").judging - judged
    assert judged >= SPEED.write * (len(TASK.rows("dev")) + len(TASK.rows("test")))
    assert forecast_of("base").testing == pytest.approx(judged * 40 / 60), "of 20 dev rows and 40 test rows"
    assert timed == pytest.approx(SPEED.alone * (WARM_UP + (1 + BESIDE_OTHERS) * ROWS)), "what is read is timed with it"
    few = replace(TASK, splits={**TASK.splits, "test": TASK.rows("test")[:3]})
    assert forecast_of("base", task=few).judging < 0.3 * forecast_of("base").judging, "three rows are timed as three"


def test_voting_is_paid_for_in_every_answer() -> None:
    plain, voting = forecast_of("base"), forecast_of("best_of")
    more = SPEED.write * 4 * (len(TASK.rows("dev")) + len(TASK.rows("test")) + WARM_UP + (1 + BESIDE_OTHERS) * ROWS)
    assert voting.judging - plain.judging == pytest.approx(more)


def test_training_is_paid_for_by_the_token_and_floors_cost_next_to_nothing() -> None:
    free, once, twice = (forecast_of("sft", speed=replace(SPEED, train=SPEED.train * times)).teaching for times in (0, 1, 2))
    assert once > free and twice - free == pytest.approx(2 * (once - free))
    assert forecast_of("linear").total <= 2


def test_only_what_prompts_begin_with_is_shared() -> None:
    """Rows of one length that agree on a word in the middle have it to themselves."""
    def task(texts: list[str]) -> Task:
        rows = tuple(Row(str(i), (Message("user", text),), "positive") for i, text in enumerate(texts))
        return replace(TASK, splits={**TASK.splits, "train": rows})

    agreeing = task([f"{word} good good good" for word in ("bad", "fine")])
    differing = task(["bad good good good", "fine poor poor poor"])
    assert forecast_of("base", task=agreeing).judging == pytest.approx(forecast_of("base", task=differing).judging)
    single = task(["bad good good good"])
    assert forecast_of("base", task=single).judging > forecast_of("base", task=agreeing).judging, "it shares nothing"


@pytest.mark.parametrize("rows", [slice(None), slice(0, 39), slice(1, None)])
def test_rows_without_targets_can_be_calibrated_on(rows: slice) -> None:
    task = retargeted(TASK, None, rows=rows)
    speed = asyncio.run(calibrate(start(task), task))
    teachable = any(row.target is not None for row in drawn(task.rows("train"), 32))
    assert speed.write > 0 and speed.alone > 0 and (speed.train > 0) == (speed.read > 0) == teachable
    assert asyncio.run(forecast("base", start(task), task, speed, latency=True)).total > 0


def test_the_estimate_of_memory_has_room_for_as_much_sampling_as_there_may_be() -> None:
    narrow, roomy = start(), start()
    roomy.policy.sampling_bytes = 10 << 30
    found, more = [asyncio.run(calibrate(candidate, TASK)).memory_bytes for candidate in (narrow, roomy)]
    assert found < 10 << 30 < more


def test_writing_is_timed_with_answers_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones are written as one."""
    asked: list[tuple[int, float]] = []
    sample = ToyPolicy.sample

    async def noted(policy: ToyPolicy, prompts: Any, *, n: int = 1, sampling: Any, **more: Any) -> Any:
        asked.append((n, sampling.temperature))
        return await sample(policy, prompts, n=n, sampling=sampling, **more)

    monkeypatch.setattr(ToyPolicy, "sample", noted)
    asyncio.run(calibrate(start(), TASK))
    assert [temperature for n, temperature in asked if n > 1] == [1.0]


def test_the_trial_adapter_is_dropped_even_when_training_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []

    async def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(ToyPolicy, "drop", lambda policy: dropped.append(policy.name))
    monkeypatch.setattr(ToyPolicy, "forward_backward", fails)
    with pytest.raises(MemoryError):
        asyncio.run(calibrate(start(), TASK))
    assert dropped == ["calibration"]
