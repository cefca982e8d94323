"""What reinforcement learning tells while it goes on: whether the task suits it, and every half minute how it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.runs import Run
from posttrain.types import Rollout

EVERY_SECONDS = 30
READY_GROUPS = 32
"""So many groups say whether there is something to learn from."""

MIXED_ENOUGH, RIGHT_ENOUGH, RIGHT_ALREADY = 0.1, 0.05, 0.9
"""Shares of groups: mixed, with an answer that is wholly right, and wholly right in all answers."""

SURE = 0.75
"""The share of answers to a row that must agree to be given, where only those that are sure are."""

LONGEST = 60

WINDOW, FEW, SAME = 5, 3, 0.02
"""Steps whose means are compared, at most and at least, and a difference that is none."""


def readiness(groups: Sequence[Sequence[float]]) -> str:
    """Whether reinforcement learning can learn from groups of such rewards, and what to do where it cannot."""
    count = len(groups)
    mixed = sum(max(group) > min(group) for group in groups) / count
    right = sum(max(group) >= 1 for group in groups) / count
    done = sum(min(group) >= 1 for group in groups) / count
    answers = sum(map(len, groups)) / count
    said = f"from {count} rows × {answers:.0f} answers, "
    if done >= RIGHT_ALREADY:
        return f"{said}{done:.0%} of groups are all right: nothing is left to gain"
    if mixed >= MIXED_ENOUGH:
        return f"{said}{mixed:.0%} of groups are mixed: there is something to learn from"
    if right < RIGHT_ENOUGH:
        return f"{said}{right:.0%} ever right and {mixed:.0%} of groups mixed: teach it with sft first"
    return f"{said}only {mixed:.0%} of groups are mixed: most of what is sampled teaches nothing"


Early = list[list[tuple[float, str]]]
"""Of the first groups, the rewards and the answers."""


def ready(early: Early, groups: Sequence[Sequence[tuple[float, str]]]) -> tuple[str, str]:
    """Adds a step's groups to the early ones; once they are enough, what these say of readiness, and of what is to be
    had without training."""
    if len(early) >= READY_GROUPS:
        return "", ""
    early += [[*group] for group in groups if group][: READY_GROUPS - len(early)]
    if len(early) < READY_GROUPS:
        return "", ""
    return readiness([[reward for reward, _ in group] for group in early]), without_training(early)


def without_training(groups: Sequence[Sequence[tuple[float, str]]]) -> str:
    """What several answers of the model in its first steps would have earned: one of them, the commonest, the best; and
    the commonest only where most agree on it."""
    count = max(map(len, groups))
    votes = [_commonest(group) for group in groups]
    one = _mean([_mean([reward for reward, _ in group]) for group in groups])
    best = _mean([max(reward for reward, _ in group) for group in groups])
    said = f"one answer earns {one:.2f}, the commonest of {count} {_mean([reward for reward, _ in votes]):.2f}, "
    said += f"the best of {count} {best:.2f}"
    sure = [reward for reward, share in votes if share >= SURE]
    if sure and len(sure) < len(votes):
        said += f"; where {SURE:.0%} agree ({len(sure) / len(votes):.0%} of rows) they earn {_mean(sure):.2f}"
    return said


def _commonest(group: Sequence[tuple[float, str]]) -> tuple[float, float]:
    """The reward of the commonest answer, and its share."""
    counted = Counter(answer.strip() for _, answer in group)
    text, count = counted.most_common(1)[0]
    return next(reward for reward, answer in group if answer.strip() == text), count / len(group)


def kept(records: Sequence[Mapping[str, Any]], step: int, steps: int) -> str:
    """Which step was kept, and how what came after it differs: from the log's records of steps."""
    said = f"step {step} of {steps}"
    if not 0 < step <= steps - FEW:
        return said
    trends = []
    for name, what in (("reward", "the reward"), ("hidden_score", "the hidden score")):
        before = [record[name] for record in records if name in record and step - WINDOW <= record["step"] < step]
        after = [record[name] for record in records if name in record and record["step"] >= max(step, steps - WINDOW)]
        if before and after:
            change = _mean(after) - _mean(before)
            trends.append(f"{what} {'stayed' if abs(change) < SAME else 'rose' if change > 0 else 'fell'}")
    return f"{said}: after it {', '.join(trends)}, and dev was no better" if trends else said


class Bulletin:
    """Tells at most once in half a minute."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._last = run.seconds
        self._rewards: list[float] = []
        self._then: dict[str, str] = {}
        self._now: dict[str, str] = {}

    def judged(self, rollouts: Sequence[Rollout]) -> None:
        """Takes note of the answers to dev rows."""
        self._now = {rollout.row.id: rollout.answer for rollout in rollouts if not rollout.error}
        self._then = self._then or self._now

    def step(self, done: int, total: int, reward: float, dev_score: float) -> None:
        """Tells how it goes, when it is time to."""
        self._rewards.append(reward)
        if self.run.seconds - self._last < EVERY_SECONDS:
            return
        self._last = self.run.seconds
        recent, first = self._rewards[-5:], self._rewards[:5]
        said = f"step {done} of {total}: reward {_mean(recent):.2f} ({_mean(first):.2f} at first)"
        said += f", best on dev {dev_score:.0%}"
        left = self.run.seconds_left
        said += f", {left / 60:.1f} min left" if left is not None else ""
        changed = next((row for row, answer in self._now.items() if self._then.get(row, answer) != answer), None)
        if changed is not None:
            said += f"\n  row {changed}: then {_short(self._then[changed])}, now {_short(self._now[changed])}"
        self.run.tell(said)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
