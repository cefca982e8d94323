"""What reinforcement learning tells while it goes on: whether the task suits it, and every half minute how it goes."""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.runs import Run
from posttrain.types import Rollout

EVERY_SECONDS = 30
READY_GROUPS = 32
"""So many groups say whether there is something to learn from."""

MIXED_ENOUGH, RIGHT_ENOUGH, RIGHT_ALREADY = 0.1, 0.05, 0.9
"""Shares of groups: mixed, with an answer that is wholly right, and wholly right in all answers."""

LONGEST = 60


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


def ready(early: list[list[float]], groups: Sequence[Sequence[float]]) -> str:
    """Adds the rewards of a step's groups to the early ones; what these say of readiness, once they are enough."""
    if len(early) >= READY_GROUPS:
        return ""
    early += [[*group] for group in groups if group][: READY_GROUPS - len(early)]
    return readiness(early) if len(early) == READY_GROUPS else ""


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
