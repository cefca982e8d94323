"""What is learnt from a group of graded answers: which of them, how far each is better, and what each token weighs.

Here GRPO (arXiv:2402.03300), Dr. GRPO (arXiv:2503.20783) and DAPO (arXiv:2503.14476) differ; all else they share.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from posttrain.environments._agents import MAIN, by_agent
from posttrain.rollouts import sampled
from posttrain.types import Datum, Rollout, Score

Average = Literal["tokens", "answers", "constant"]
CutOff = Literal["graded", "masked", "wrong"]


@dataclass(frozen=True)
class Choices:
    """`learn_from` of a group's answers are learnt from (0: all): those whose rewards differ most ("Not all rollouts
    are useful", arXiv:2504.13818): to sample a large group costs little, to learn from all of it more.  Answers worse
    than their group's mean weigh `worse_weight`; at 0 the better ones are imitated and nothing is pushed away (RAFT++,
    arXiv:2504.11343), which keeps answers varied.  With `scaled` advantages are divided by their group's deviation.

    `average` is what the loss is averaged over.  tokens: all weigh the same (DAPO, eq. 8).  answers: the tokens of
    each, then the answers, so that a token of a long one weighs less (GRPO, eq. 3).  constant: the answers, each
    divided by the longest that there could be (Dr. GRPO, section 3.2).

    `cut_off` is what becomes of an answer that was cut off at its greatest length.  graded: what its text deserves.
    masked: its group is compared with it, but it is not learnt from (DAPO, section 3.4).  wrong: its reward is 0.
    """

    learn_from: int = 0
    worse_weight: float = 1.0
    scaled: bool = True
    average: Average = "tokens"
    cut_off: CutOff = "graded"


@dataclass(frozen=True)
class Group:
    """The answers to a row that have a score, what each was rewarded with, and what is learnt from them, by agent."""

    rollouts: list[Rollout]
    rewards: list[float]
    lessons: Mapping[str, list[Datum]]

    @classmethod
    def of(
        cls,
        rollouts: list[Rollout],
        rewards: list[float],
        choices: Choices,
        *,
        penalised: bool = False,
        agents: Collection[str] = (MAIN,),
    ) -> Group:
        """See `lessons`; `agents` are those that learn.  Answers that were cut off are rewarded with nothing where
        these count as wrong.

        All that an agent was asked in the attempts at a row is a group of its own: each is rewarded with what the whole
        attempt earned, and compared with the mean over the group (arXiv:2510.04678 rewards so, but has one group).
        """
        if choices.cut_off == "wrong":
            paired = zip(rollouts, rewards, strict=True)
            rewards = [0.0 if was_cut_off(rollout) else reward for rollout, reward in paired]
        taken = [
            (name, part, reward)
            for rollout, reward in zip(rollouts, rewards, strict=True)
            for name, part in by_agent(rollout)
            if part is rollout or (part.completion and part.completion.tokens and not part.error)
        ]
        learnt = {}
        for agent in agents:
            parts = [part for name, part, _ in taken if name == agent]
            earned = [reward for name, _, reward in taken if name == agent]
            learnt[agent] = lessons(parts, earned, choices, penalised=penalised)
        return cls(rollouts, rewards, learnt)

    @property
    def teaches(self) -> bool:
        """Whether anything is learnt from it."""
        return any(self.lessons.values())

    @property
    def has_signal(self) -> bool:
        """Whether an answer that is learnt from is better or worse than the group."""
        return any(any(lesson.advantages) for lessons in self.lessons.values() for lesson in lessons)


def lessons(
    group: Sequence[Rollout], rewards: Sequence[float], choices: Choices, *, penalised: bool = False
) -> list[Datum]:
    """What is learnt from a group of rollouts that all have a score; `penalised`: also from those without advantage."""
    kept = most_different(rewards, choices.learn_from or len(rewards))
    data = []
    for i, advantage in zip(kept, advantages([rewards[i] for i in kept], scaled=choices.scaled), strict=True):
        weighed = advantage if advantage > 0 else choices.worse_weight * advantage
        if (weighed or penalised) and not (choices.cut_off == "masked" and was_cut_off(group[i])):
            data += sampled(group[i], weighed, average=choices.average == "answers")
    return data


def normaliser(data: Sequence[Datum], average: Average, longest: int) -> float:
    """What the summed loss of the data is divided by; `longest`: the tokens that an answer may have."""
    if average == "tokens":
        return float(sum(len(datum.trained) for datum in data))
    return float(len(data) * (longest if average == "constant" else 1))


def was_cut_off(rollout: Rollout) -> bool:
    return rollout.completion is not None and rollout.completion.stop_reason == "length"


def most_different(rewards: Sequence[float], count: int) -> list[int]:
    """Which `count` rewards have the largest variance: some of the lowest and some of the highest (arXiv:2504.13818,
    theorem 1).  Of equal ones, those that come first."""
    if count >= len(rewards):
        return list(range(len(rewards)))
    up = sorted(range(len(rewards)), key=lambda i: rewards[i])
    down = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    choices = ([*up[: count - high], *down[:high]] for high in range(count + 1))
    return max(choices, key=lambda chosen: statistics.pvariance([rewards[i] for i in chosen]))


def advantages(rewards: Sequence[float], *, scaled: bool = True) -> list[float]:
    """Rewards minus their group's mean; `scaled` over its standard deviation (arXiv:2402.03300, section 4.1.2)."""
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    return [(reward - mean) / (deviation + 1e-6 if scaled else 1.0) for reward in rewards]


def described(groups: Sequence[Group]) -> dict[str, float]:
    """What the groups of a step were like, as means."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    completions = [rollout.completion for rollout in rollouts if rollout.completion]
    asked = [name for rollout in rollouts for name, _ in by_agent(rollout) if name != MAIN]
    record = {
        "reward": _mean([value for group in groups for value in group.rewards]),
        "groups_with_signal": _mean([group.has_signal for group in groups]),
        "completion_tokens": _mean([completion.completion_tokens for completion in completions]),
        "truncated": _mean([completion.stop_reason == "length" for completion in completions]),
    }
    record |= {f"asked_{name}": asked.count(name) / len(rollouts) for name in sorted({*asked})}
    return record | parts([rollout.score for rollout in rollouts if rollout.score])


def parts(scores: Sequence[Score]) -> dict[str, float]:
    """The means of the parts that the grader shows beside its verdict, such as whether an answer could be read."""
    names = sorted({name for score in scores for name in score.parts})
    return {f"part_{name}": _mean([score.parts[name] for score in scores if name in score.parts]) for name in names}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
