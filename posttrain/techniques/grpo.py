"""grpo: reinforcement learning from the task's grader (group-relative policy optimisation, arXiv:2402.03300).

Each step samples a group of answers to every row of a batch, at temperature 1 and without the output constraint (the
log-probabilities that are trained must be those that were sampled), grades them, and raises the probability of the
answers better than their group's mean.  Groups without signal (no answer that is learnt from is better or worse than
its group) teach nothing: they are counted, and skipped but for the penalty `kl`, which is for their answers too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.drawing import drawn
from posttrain.evaluation.evaluate import score_and_grade, scored_outcomes
from posttrain.rollouts import play
from posttrain.runs import Run
from posttrain.techniques import _groups
from posttrain.techniques._audited import Fooled, audited
from posttrain.techniques._best import Best
from posttrain.techniques._bulletin import Bulletin, Early, kept, ready
from posttrain.techniques._checkpoint import Checkpoints
from posttrain.techniques._curriculum import Curriculum
from posttrain.techniques._cut_off import told
from posttrain.techniques._groups import Group
from posttrain.techniques._hidden import Hidden, OnAlarm
from posttrain.techniques._optimiser import Stepping
from posttrain.techniques._record import forget_rollouts, write_rollouts
from posttrain.techniques._team import Team, references, trained
from posttrain.techniques._updates import Updates
from posttrain.techniques._work import Work
from posttrain.types import (
    Kind,
    LearntNothing,
    LoRA,
    Policy,
    Rollout,
    Sampling,
    Task,
    UserError,
)

KIND: Kind = "weights"
LABEL = "reinforcement learning"

CHECKPOINT_STEPS = 10
"""A checkpoint is written before every so many steps, and whenever the policy was judged."""


@dataclass(frozen=True)
class Config(Stepping, _groups.Choices):
    """`kl` > 0 adds a penalty for leaving the policy that training began with; every `evaluate_every` steps the
    policy is judged on `dev_rows` dev rows, and the best one is kept; the rollouts of every `rollouts_every`-th step
    are written down.  A step's groups are learnt from in `updates_per_step` parts, an optimiser step for each: what was
    sampled together is then a little older than the weights, which the clipped ratio accounts for.  `lora` shapes a
    fresh adapter (None: LoRA()); one that was trained before goes on as it is.

    What is learnt from a group: see Choices.  While fewer than `rows_per_step` groups give signal, as many rows again
    are sampled, `most_draws` times at most.  As many groups as that are learnt from at most: the first of those with
    signal (DAPO, section 3.2), then, where there is a penalty, of the others.

    A policy that does worse on dev than the best one, beyond chance, is given up: training goes back to the best, and
    on at half the rate; from then on only what is better beyond chance takes its place.  A reward that is mere noise
    moves the weights as far as any other (Adam divides by its size).

    Before the first step the grader is audited (evaluation/audit): where an answer that does not do the task is paid,
    `fooled` says whether training stops or warns.

    A task may have a hidden grader, which judges what is rewarded but is never trained on, and by which the best policy
    is chosen; where the two drift apart, `on_alarm` says whether training stops, warns, or screens what is rejected out
    (evaluation/alarms.py).

    `train` names the agents of an episode that learn, by comma (none: all); the others stay as they are.

    With `focus` rows come more often from slices in which most is to be gained, and those without signal more seldom:
    see Curriculum.

    Steps are few and each is one update, so the rate (see Stepping) is high and falls to a tenth (a tenth of what LoRA
    takes is what all weights take: "LoRA without regret", Schulman 2025).  The short prompts of a step cost as much as
    its answers: eight answers of each row make most groups mixed where one in ten is right (1 - 0.9^8 = 57 %).
    """

    steps: int = 60
    rows_per_step: int = 16
    group_size: int = 8
    focus: bool = False
    train: str = ""
    updates_per_step: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    most_draws: int = 1
    lora: LoRA | None = None
    evaluate_every: int = 10
    dev_rows: int = 40
    rollouts_every: int = 10
    fooled: Fooled = "stop"
    on_alarm: OnAlarm = "stop"
    patience_without_signal: int = 8  # batches without a group with signal before giving up


MOST_WENT_BACK = 2
"""Training that went so often back to its very beginning, from policies that were worse beyond chance, ends.  What goes
on from there is a random walk by smaller steps: with rewards at random it once came from 18 to 30 % of sums."""

Rewards = Callable[[Sequence[list[Rollout]]], list[list[float]]]
"""From the groups of a step, the rewards of their rollouts.  Failed rollouts never reach it."""


def graded_rewards(groups: Sequence[list[Rollout]]) -> list[list[float]]:
    """The grader's values."""
    return [[rollout.score.value for rollout in group if rollout.score] for group in groups]


def work(task: Task, config: Config = Config()) -> Work:
    """What `teach` will do at most: where every step draws `most_draws` times."""
    groups = config.steps * config.rows_per_step
    judged = (math.ceil(config.steps / config.evaluate_every) + 1) * min(config.dev_rows, len(task.rows("dev")))
    learnt = min(config.learn_from or config.group_size, config.group_size)
    sampled = groups * config.most_draws * config.group_size
    return Work(rows_answered=sampled + judged, rows_trained=groups * learnt)


async def teach(
    candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config(), rewards: Rewards = graded_rewards
) -> PolicyCandidate:
    """The candidate with a trained adapter.  Raises UserError when nothing could be, or was, learnt."""
    told_by_audit = await audited(task, run, config.fooled)
    run.tell(f"audit: {told_by_audit}")
    names = [name.strip() for name in config.train.split(",") if name.strip()]
    with (
        trained(candidate, names, "grpo", config.lora, run) as (learner, team),
        references(candidate, team if config.kl else Team({})) as before,
    ):
        training = Training(learner, team, task, run, config, rewards, before)
        await training.run_steps()
    seen = training.seen
    details = {**candidate.details, "audit": told_by_audit, "training": training.summary()}
    details["kept"] = kept(run.metrics(), seen.best.step, seen.step)
    if seen.readiness:
        details |= {"readiness": seen.readiness, "without training": seen.without_training}
    details |= (
        {"stopped by an alarm": f"{stop}; step {seen.best.step} is kept"} if (stop := training.hidden.stop) else {}
    )
    details |= told(seen.ended, seen.cut_off, run.metrics(), learner.output.max_tokens, config.cut_off)
    low, high = seen.best.gain
    if low <= 0:
        details["maybe learnt nothing"] = (
            f"{low:+.0%} to {high:+.0%} on dev (95 % interval) may be chance; give it more time, or dev more rows"
        )
    return replace(learner, details=details)


@dataclass
class Seen:
    """What the loop has seen so far: with a checkpoint's weights, all that it needs to go on."""

    step: int = 0
    judged: int = -1  # the step before which the policy was judged last
    groups: int = 0
    skipped_groups: int = 0
    without_signal: int = 0
    ended: int = 0  # rollouts that were not cut off
    cut_off: int = 0
    updates: int = 0
    trained_tokens: int = 0
    early: Early = field(default_factory=list)
    readiness: str = ""
    without_training: str = ""
    best: Best = field(default_factory=Best)
    curriculum: dict[str, Any] = field(default_factory=dict)
    hidden: dict[str, Any] = field(default_factory=dict)


class Training:
    """The loop."""

    def __init__(
        self,
        learner: PolicyCandidate,
        team: Team,
        task: Task,
        run: Run,
        config: Config,
        rewards: Rewards,
        references: Mapping[str, Policy],
    ) -> None:
        self.learner, self.team, self.task, self.run, self.config = learner, team, task, run, config
        self.rewards = rewards
        longest = {name: member.output.max_tokens for name, member in learner.team().items()}
        self.updates = Updates(team, references, longest, config.average, config.clip_low, config.clip_high, config.kl)
        self.curriculum = Curriculum(task.rows("train"), run.seed, focus=config.focus)
        self.checkpoints = Checkpoints(run, team)
        self.bulletin = Bulletin(run)
        self.hidden = Hidden(task, run, config.on_alarm)
        self.seen = Seen()

    async def run_steps(self) -> None:
        """Samples and learns until the steps or the budget are used up, then goes back to the best on dev."""
        if found := await self.checkpoints.restore():
            self.seen = Seen(**found | {"best": Best(**found["best"])})
            self.curriculum.restore(**self.seen.curriculum)
            self.hidden.restore(**self.seen.hidden)
            forget_rollouts(self.run, self.seen.step)
        seen = self.seen
        while seen.step < self.config.steps and not self.run.out_of_budget(seen.step):
            if seen.without_signal >= self.config.patience_without_signal or self.hidden.stop:
                break  # nothing is left to learn, or what is learnt is to cheat
            if seen.step % self.config.evaluate_every == 0:
                await self._judge_once()
                if not seen.best.step and seen.best.worse >= MOST_WENT_BACK:
                    break  # what is rewarded is not what is scored
            elif seen.step % CHECKPOINT_STEPS == 0:
                await self._keep()
            await self._one_step()
            seen.step += 1
        await self._judge_once()
        self._refuse_if_nothing_was_learnt()
        await self.team.load(self.run.folder / "best")

    async def _judge_once(self) -> None:
        """Judges the policy, unless that was done before the checkpoint that training goes on from."""
        if self.seen.judged != self.seen.step:
            await self._judge()
            self.seen.judged = self.seen.step
            await self._keep()

    async def _keep(self) -> None:
        self.seen.curriculum, self.seen.hidden = self.curriculum.state(), self.hidden.state()
        await self.checkpoints.write(asdict(self.seen))

    def _refuse_if_nothing_was_learnt(self) -> None:
        """The policy that training began with is not given back as a taught one."""
        seen, best = self.seen, self.seen.best
        if best.step:
            return
        reason, remedy = "the budget was used up before its first step", "give more --minutes or --steps"
        if seen.skipped_groups < seen.groups:
            reason = f"after no step was the score on dev better than before the first ({best.score[0]:.0%})"
            if best.worse:
                reason += f" beyond chance, and so much worse that training went back there {best.worse}×"
            if self.hidden.stop:
                reason += f", and an alarm ended it {self.hidden.stop}"
            remedy = "is what you want rewarded? see metrics.jsonl and read rollouts/; if it is, give it more time"
        elif seen.step:
            reason, remedy = f"there never was a group {self._signal()}", self._remedy()
        raise LearntNothing(f"grpo learnt nothing: {reason}", place=str(self.run.folder), remedy=remedy)

    async def _one_step(self) -> None:
        played, groups = await self._sample()
        if self.seen.step % self.config.rollouts_every == 0:
            write_rollouts(self.run, self.seen.step, played, [group.rewards for group in groups])
        self._tell_of_readiness(groups)
        record: dict[str, Any] = _groups.described(groups)
        record |= await self.hidden.look(self.seen.step, [(group.rollouts, group.rewards) for group in groups])
        record["failed"] = 1 - sum(len(group.rollouts) for group in groups) / sum(map(len, played))
        honest = self.hidden.screened(groups, self._group)
        self._count(honest)
        taught = sorted((group for group in honest if group.teaches), key=lambda group: not group.has_signal)
        if taught:
            record |= await self._learn(taught[: self.config.rows_per_step])
        self.run.log(step=self.seen.step, **record)
        self.run.progress("grpo", self.seen.step + 1, self.config.steps, f"reward {record['reward']:.2f}")
        self.bulletin.step(self.seen.step + 1, self.config.steps, record["reward"], self.seen.best.score[0])

    def _tell_of_readiness(self, groups: Sequence[Group]) -> None:
        seen = self.seen
        early = [
            [(reward, rollout.answer) for reward, rollout in zip(group.rewards, group.rollouts, strict=True)]
            for group in groups
        ]
        said, without = ready(seen.early, early)
        if said:
            seen.readiness, seen.without_training = said, without
            self.run.tell(f"readiness: {said}\n  without training: {without}")

    async def _sample(self) -> tuple[list[list[Rollout]], list[Group]]:
        """What was played, and what it is worth, group by group: of as many rows as a step has, and of as many again
        while fewer groups than that give signal and `most_draws` allows it."""
        played, groups = list[list[Rollout]](), list[Group]()
        for draw in range(self.config.most_draws):
            seed = self.run.seed * 1_000_003 + self.seen.step + 500_009 * draw
            sampling = Sampling(max_tokens=self.learner.output.max_tokens, temperature=1.0, seed=seed)
            rows = self.curriculum.draw(self.config.rows_per_step)
            more = await play(self.learner, rows, self.task, n=self.config.group_size, sampling=sampling)
            scored = [[rollout for rollout in group if rollout.score] for group in more]
            if not any(scored):
                raise UserError(
                    f"every rollout of step {self.seen.step} failed: {more[0][0].error}",
                    place=self.task.name,
                    remedy="mend the grader or the rows; posttrain check says where it fails",
                )
            for rollouts, rewards in zip(scored, self.rewards(scored), strict=True):
                group = self._group(rollouts, rewards)
                if rollouts:
                    self.curriculum.learn(rollouts[0].row, group.rewards)
                groups.append(group)
            played += more
            if _with_signal(groups) >= self.config.rows_per_step:
                break
        return played, groups

    def _group(self, rollouts: list[Rollout], rewards: list[float]) -> Group:
        return Group.of(rollouts, rewards, self.config, penalised=self.config.kl > 0, agents=self.team.policies)

    def _count(self, groups: Sequence[Group]) -> None:
        """Takes note of how much signal there was.  Raises UserError when there never was any."""
        seen, signal = self.seen, _with_signal(groups)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        cut_off = sum(map(_groups.was_cut_off, rollouts))
        seen.cut_off += cut_off
        seen.ended += len(rollouts) - cut_off
        seen.groups += len(groups)
        seen.skipped_groups += len(groups) - signal
        seen.without_signal = 0 if signal else seen.without_signal + 1
        if seen.without_signal >= self.config.patience_without_signal and seen.skipped_groups == seen.groups:
            raise UserError(
                f"grpo learns nothing: {seen.without_signal} batches in a row without a group {self._signal()}",
                place=self.task.name,
                remedy=self._remedy(),
            )

    async def _learn(self, groups: Sequence[Group]) -> dict[str, float]:
        """One update from each part of the groups, those with signal coming first; means over the updates."""
        parts = max(1, min(self.config.updates_per_step, _with_signal(groups)))
        settings = self.config.step(self.share_of_rate())
        learnt = [await self.updates.learn(groups[i::parts], settings) for i in range(parts)]
        self.seen.updates += parts
        every = [(key, value) for metrics in learnt for key, value in metrics.items()]
        self.seen.trained_tokens += sum(int(value) for key, value in every if key.endswith("trained_tokens"))
        return {name: _mean([value for key, value in every if key == name]) for name in dict(every)}

    def share_of_rate(self) -> float:
        """Of the learning rate: it falls linearly to a tenth, over the steps or the time there is, whichever is used up
        first, and by half whenever training goes back."""
        left, minutes, steps = self.run.seconds_left, self.run.budget.minutes, self.run.budget.steps
        done = self.seen.step / min(self.config.steps, steps or self.config.steps)
        if left is not None and minutes:
            done = max(done, 1 - left / (minutes * 60))
        return 0.5**self.seen.best.worse * (1 - 0.9 * min(1.0, done))

    async def _judge(self) -> None:
        """Scores the policy on dev: the best is kept, and gone back to from one that is worse beyond chance."""
        rows = drawn(self.task.rows("dev"), self.config.dev_rows)
        judged = [rollout for rollout, *_ in await play(self.learner, rows, self.task)]
        self.bulletin.judged(judged)
        scores = await self.hidden.scored(judged)
        score, outcomes = score_and_grade(scores, self.task), scored_outcomes(scores, self.task)
        best = self.run.folder / "best"
        record: dict[str, Any] = {"dev_score": score[0], "dev_value": score[1]}
        record |= {f"dev_{name}": value for name, value in _groups.parts([score for score in scores if score]).items()}
        judgement = self.seen.best.judge(self.seen.step, score, outcomes)
        if judgement == "best":
            await self.team.save(best)
        elif judgement == "worse":
            await self.team.load(best)
            record["went_back_to"] = self.seen.best.step
        self.run.log(step=self.seen.step, **record)

    def _signal(self) -> str:
        """What a group with signal is, in words."""
        masked = self.config.cut_off == "masked"
        return "whose answers differ in reward" + (", those that were cut off left out" if masked else "")

    def _remedy(self) -> str:
        if self.config.cut_off == "masked" and not self.seen.ended:
            return (
                f"every answer was cut off at {self.learner.output.max_tokens} tokens and so not learnt from: raise "
                "max_tokens under [output], or teach sft first"
            )
        if self.seen.best.score[0] > 0.9:
            return f"{self.seen.best.score[0]:.0%} of dev rows are right already: nothing is left to gain"
        return (
            "the model is never (or always) right: teach it with sft first, or add demonstrations to the instructions"
        )

    def summary(self) -> dict[str, float]:
        return {
            "steps": self.seen.step,
            "updates": self.seen.updates,
            "step_kept": self.seen.best.step,
            "went_back": self.seen.best.worse,
            "trained_tokens": self.seen.trained_tokens,
            "groups": self.seen.groups,
            "groups_without_signal": self.seen.skipped_groups,
            "dev_score": self.seen.best.score[0],
        }


def _with_signal(groups: Sequence[Group]) -> int:
    return sum(group.has_signal for group in groups)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
