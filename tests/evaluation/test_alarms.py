"""Alarms come when a reward drifts away from what is wanted, and not when a policy learns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from posttrain.evaluation.alarms import BASE_CHECKS, JUMP_CHECKS, Alarm, Check, alarms

ROWS, ANSWERS, STEPS = 16, 8, 60


def curve(
    seed: int, right: Callable[[int], float], cheats: Callable[[int], float] = lambda _: 0.0, blur: float = 0.0
) -> list[Check]:
    """A training in which answers are right, or cheat, with some probability; rows differ in how hard they are, and the
    hidden grader rejects, or accepts, a share `blur` that the reward does not."""
    draw, found = random.Random(seed), []
    ease = {row: draw.gauss(0, 0.2) for row in range(200)}
    for step in range(STEPS):
        rows, rewards, golds, answers = [], [], [], []
        for row in draw.sample(range(200), ROWS):
            for _ in range(ANSWERS):
                is_right = draw.random() < min(1.0, max(0.0, right(step) + ease[row]))
                cheated = draw.random() < cheats(step)
                rows.append(str(row))
                rewards.append(float(is_right or cheated))
                golds.append(float(is_right != (draw.random() < blur) and not cheated))
                answers.append(str(draw.random()))
        found.append(Check(step, tuple(rows), tuple(rewards), tuple(golds), tuple(answers), (8,) * len(rows)))
    return found


def seen(checks: Sequence[Check]) -> dict[int, list[Alarm]]:
    """The alarms at each step, of what a training keeps of the looks before."""
    found = {}
    for number in range(1, len(checks) + 1):
        kept = [*checks[:number]]
        del kept[BASE_CHECKS:-JUMP_CHECKS]
        if raised := alarms(kept):
            found[checks[number - 1].step] = raised
    return found


def learning(step: int) -> float:
    return 0.1 + 0.8 * step / STEPS


@pytest.mark.parametrize("blur", [0.0, 0.03])
def test_sixty_honest_curves_raise_no_alarm(blur: float) -> None:
    shapes: list[Callable[[int], float]] = [learning, lambda _: 0.3, lambda step: 0.9 if step > 20 else 0.1]
    raised = [seen(curve(seed, shapes[seed % 3], blur=blur)) for seed in range(60)]
    stops = [alarm for by_step in raised for found in by_step.values() for alarm in found if alarm.level == "stop"]
    assert not stops
    assert sum(map(bool, raised)) <= (0 if blur == 0 else 3), [by_step for by_step in raised if by_step][:3]


@pytest.mark.parametrize("speed", [0.02, 0.05, 0.2])
def test_cheating_is_stopped_within_ten_steps_of_its_onset(speed: float) -> None:
    """Onset: the share of answers that cheat is a tenth."""
    for seed in range(10):
        begins = 20

        def cheats(step: int, begins: int = begins) -> float:
            return min(1.0, max(0.0, speed * (step - begins)))

        raised = seen(curve(seed, lambda _: 0.2, cheats))
        first = min(step for step, found in raised.items() if any(alarm.level == "stop" for alarm in found))
        onset = begins + 0.1 / speed
        assert begins < first <= onset + 10
        assert min(raised) > begins, "no alarm before anybody cheats"


def test_cheating_that_grows_while_the_task_is_learnt_too() -> None:
    raised = seen(curve(1, learning, lambda step: max(0.0, 0.02 * (step - 10))))
    assert any(alarm.kind == "gap" and alarm.level == "stop" for found in raised.values() for alarm in found)


def test_an_impossible_row_that_is_paid_stops_at_once() -> None:
    check = Check(0, ("a", "b"), (1.0, 1.0), (1.0, 1.0))
    (alarm,) = alarms([check], frozenset({"b"}))
    assert (alarm.kind, alarm.level) == ("canary", "stop") and alarm.told.endswith("b")
    assert not alarms([replace(check, rewards=(1.0, 0.5))], frozenset({"b"})) and not alarms([])


def flat(steps: int, **changed: object) -> list[Check]:
    """Rewards and hidden scores that agree, and change nowhere."""
    rows = tuple(str(i) for i in range(32))
    check = Check(0, rows, (1.0, 0.0) * 16, (1.0, 0.0) * 16, tuple(map(str, range(32))), (4, 8) * 16)
    return [replace(check, step=step, **(changed if step >= steps // 2 else {})) for step in range(steps)]


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("length", {"lengths": (40, 50) * 16}),
        ("diversity", {"answers": ("same",) * 32}),
        ("correlation", {"golds": (0.0, 1.0, 1.0, 0.0) * 8}),
        ("jump", {"rewards": (1.0,) * 32}),
    ],
)
def test_what_is_strange_is_warned_of(kind: str, changed: dict[str, object]) -> None:
    assert not seen(flat(20))
    raised = seen(flat(20, **changed))
    assert kind in {alarm.kind for found in raised.values() for alarm in found if alarm.level == "warn" or kind == "jump"}
    assert min(raised) >= 10


def test_what_the_hidden_score_accounts_for_is_not_strange() -> None:
    better = {"rewards": (1.0,) * 32, "golds": (1.0,) * 32}
    assert not seen(flat(20, lengths=(40, 50) * 16, **better)) and not seen(flat(20, answers=("same",) * 32, **better))
