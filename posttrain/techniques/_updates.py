"""What a step of reinforcement learning does to the weights: an update of each agent that learns, for each part of the
groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.environments._agents import MAIN
from posttrain.optimisers import Optimiser
from posttrain.techniques._groups import Average, Group, normaliser
from posttrain.techniques._team import Team
from posttrain.techniques.dpo import anchored
from posttrain.types import Datum, Policy

LOGGED = ("loss", "gradient_norm", "clipped", "kl", "trained_tokens", "forwarded_tokens")


@dataclass(frozen=True)
class Updates:
    """`references` are what the penalty `kl` is to, `longest` the tokens that an answer may have, both by agent."""

    team: Team
    references: Mapping[str, Policy]
    longest: Mapping[str, int]
    average: Average
    clip_low: float
    clip_high: float
    kl: float

    async def learn(self, groups: Sequence[Group], settings: Optimiser) -> dict[str, float]:
        """An update of every agent that learns anything from these groups.  What is told of one that is not the main
        agent begins with its name."""
        found: dict[str, float] = {}
        for name, policy in self.team.policies.items():
            data = [datum for group in groups for datum in group.lessons[name]]
            if data:
                metrics = await self._update(name, policy, data, settings)
                found |= {key if name == MAIN else f"{name}_{key}": value for key, value in metrics.items()}
        return found

    async def _update(self, name: str, policy: Policy, data: list[Datum], settings: Optimiser) -> dict[str, float]:
        from posttrain import losses  # noqa: PLC0415  (torch: a second that only training needs)

        if name in self.references:
            data = await anchored(data, self.references[name])
        loss = losses.clipped_policy_gradient(clip_low=self.clip_low, clip_high=self.clip_high, kl=self.kl)
        divisor = normaliser(data, self.average, self.longest[name])
        metrics = await policy.forward_backward(data, loss, normaliser=divisor)
        metrics |= await policy.optim_step(settings)
        return {key: metrics[key] for key in LOGGED if key in metrics}
