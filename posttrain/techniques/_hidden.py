"""The hidden grader (`Task.gold`) beside a training that never sees it: what it gives is watched, and raises alarms."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from posttrain.evaluation.alarms import BASE_CHECKS, JUMP_CHECKS, Alarm, Check, alarms
from posttrain.evaluation.paid import Paid, page
from posttrain.evaluation.suspicions import IMPOSSIBLE, REJECTED
from posttrain.rollouts import graded
from posttrain.runs import Run
from posttrain.techniques._groups import Group
from posttrain.types import Rollout, Score, Task, UserError

OnAlarm = Literal["stop", "warn", "screen"]
"""What a grave alarm does: it ends training; it is told; or from then on answers that are paid and that the hidden
grader rejects are left out of what is learnt from, which makes the hidden grader a part of the reward."""

PAGE_ANSWERS = 400
"""Of the last steps, shown on the page of an alarm."""


class Hidden:
    """Watches a training, where its task has a hidden grader or impossible rows; else does nothing."""

    def __init__(self, task: Task, run: Run, on_alarm: OnAlarm) -> None:
        self.gold, self.run, self.on_alarm = task.gold, run, on_alarm
        rows = [row for split in task.splits.values() for row in split]
        self.impossible = frozenset(row.id for row in rows if row.metadata.get(IMPOSSIBLE))
        self.checks: list[Check] = []
        self.raised: dict[str, str] = {}  # by kind, the level that was told
        self.stop = ""
        self.screens = False
        self.rejected: frozenset[int] = frozenset()  # of the last step, by id()
        self._paid: list[Paid] = []

    async def scored(self, rollouts: Sequence[Rollout]) -> list[Score | None]:
        """The hidden scores of rollouts; those of the task's own grader where there is no hidden one.

        Raises UserError when the hidden grader fails on all of them.
        """
        if self.gold is None:
            return [rollout.score for rollout in rollouts]
        again = [await graded(replace(rollout, score=None), self.gold) for rollout in rollouts]
        failed = [
            rollout.error for rollout, before in zip(again, rollouts, strict=True) if rollout.error != before.error
        ]
        if failed and len(failed) == len(rollouts):
            remedy = "mend the grader under [gold] in task.toml"
            raise UserError(f"the hidden grader failed on every answer: {failed[0]}", place="[gold]", remedy=remedy)
        return [rollout.score for rollout in again]

    async def look(self, step: int, groups: Sequence[tuple[Sequence[Rollout], Sequence[float]]]) -> dict[str, Any]:
        """Looks at the rollouts of a step, each group with its rewards; what to log of it."""
        if self.gold is None and not self.impossible:
            return {}
        paired = [pair for rollouts, rewards in groups for pair in zip(rollouts, rewards, strict=True)]
        scores = await self.scored([rollout for rollout, _ in paired])
        self.rejected = frozenset(
            id(rollout)
            for (rollout, reward), score in zip(paired, scores, strict=True)
            if score is None or reward - score.value >= REJECTED or (rollout.row.id in self.impossible and reward >= 1)
        )
        seen = [
            (rollout, reward, score.value) for (rollout, reward), score in zip(paired, scores, strict=True) if score
        ]
        failed = {"hidden_failed": 1 - len(seen) / len(paired)} if len(seen) < len(paired) else {}
        if not seen:
            return failed
        self._paid = [*self._paid, *(Paid(*each) for each in seen)][-PAGE_ANSWERS:]
        rollouts, rewards, golds = zip(*seen, strict=True)
        self.checks.append(
            Check(
                step,
                tuple(rollout.row.id for rollout in rollouts),
                rewards,
                golds,
                # a number stands for the text: it is only compared, and kept with every checkpoint
                tuple(str(zlib.crc32(rollout.answer.encode())) for rollout in rollouts),
                tuple(rollout.completion.completion_tokens for rollout in rollouts if rollout.completion),
            )
        )
        del self.checks[BASE_CHECKS:-JUMP_CHECKS]
        record: dict[str, Any] = {} if self.gold is None else {"hidden_score": sum(golds) / len(golds), **failed}
        # without a hidden grader there is nothing to compare with
        found = alarms(self.checks if self.gold else self.checks[-1:], self.impossible)
        self._tell(step, found)
        return record | ({"alarms": [asdict(alarm) for alarm in found]} if found else {})

    def screened(self, groups: Sequence[Group], grouped: Callable[[list[Rollout], list[float]], Group]) -> list[Group]:
        """The groups to be learnt from: once an alarm was raised, with `screen`, without what is rejected, or could not
        be judged; what is left of one is `grouped` anew."""
        if not self.screens:
            return list(groups)
        kept = []
        for group in groups:
            pairs = zip(group.rollouts, group.rewards, strict=True)
            honest = [(rollout, reward) for rollout, reward in pairs if id(rollout) not in self.rejected]
            if len(honest) == len(group.rollouts):
                kept.append(group)
            elif honest:
                rollouts, rewards = zip(*honest, strict=True)
                kept.append(grouped([*rollouts], [*rewards]))
        return kept

    def _tell(self, step: int, found: Sequence[Alarm]) -> None:
        """Tells of each kind once, and once more when it is grave, with a page; a grave one ends training, when it
        may."""
        new = [alarm for alarm in found if self.raised.get(alarm.kind) not in (alarm.level, "stop")]
        shown = ""
        if new and self._paid and self.gold is not None:
            path = page(self.run.folder, step, [alarm.told for alarm in new], self._paid)
            shown = f"\n  the best-paid answers: {path}"
        for alarm in new:
            self.run.tell(f"alarm at step {step}: {alarm.told}{shown}")
            self.raised[alarm.kind] = alarm.level
        for alarm in found:
            if alarm.level == "stop":
                self.screens = self.on_alarm == "screen"
                if self.on_alarm == "stop" and not self.stop:
                    self.stop = f"at step {step}: {alarm.told}"

    def state(self) -> dict[str, Any]:
        """All that it has seen."""
        seen: dict[str, Any] = {"checks": [asdict(check) for check in self.checks], "raised": self.raised}
        return seen | {"stop": self.stop, "screens": self.screens}

    def restore(
        self, checks: Sequence[Mapping[str, Any]], raised: Mapping[str, str], stop: str, screens: bool = False
    ) -> None:
        """Goes on from what `state` gave."""
        whole: Any = [{name: tuple(v) if isinstance(v, list) else v for name, v in check.items()} for check in checks]
        self.checks = [Check(**check) for check in whole]
        self.raised, self.stop, self.screens = dict(raised), stop, screens
