"""The policies that a training moves: one, or where several agents take part in an episode, one for each of them that
is trained, all of them adapters over the same base."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from posttrain.candidates.policy import AGENTS, PolicyCandidate
from posttrain.environments._agents import MAIN
from posttrain.runs import Run
from posttrain.techniques._adapter import as_it_is, dropped_on_failure, trainable
from posttrain.types import LoRA, Policy, UserError


@dataclass(frozen=True)
class Team:
    """By the name of the agent; `beside` are the adapters of those that are not trained.  It is saved and loaded as a
    policy is, that of the main agent where a lone one is."""

    policies: Mapping[str, Policy]
    beside: Mapping[str, Policy] = field(default_factory=dict)

    @classmethod
    def of(cls, learner: PolicyCandidate, trained: Collection[str] = (MAIN,)) -> Team:
        """Of a candidate and all whom it may ask, of which those are trained."""
        team = learner.team()
        others = {name: member.policy for name, member in team.items() if member.kind == "weights"}
        policies = {name: team[name].policy for name in trained}
        return cls(policies, {name: policy for name, policy in others.items() if name not in policies})

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        """Writes all adapters (and the state of their optimisers, to resume: then those beside, too, for at a
        checkpoint an engine forgets of an adapter what may change last bits, as one that is opened anew has)."""
        for name, policy in self.policies.items():
            await policy.save(_place(folder, name), optimiser=optimiser)
        for name, policy in self.beside.items() if optimiser else ():
            await policy.save(folder / "beside" / name, optimiser=optimiser)

    async def load(self, folder: Path) -> None:
        """Puts all of them back to what `save` wrote."""
        for name, policy in self.policies.items():
            await policy.load(_place(folder, name))


@contextmanager
def trained(
    candidate: PolicyCandidate, names: Sequence[str], technique: str, lora: LoRA | None, run: Run
) -> Iterator[tuple[PolicyCandidate, Team]]:
    """The candidate with policies to train in the place of those that are named (none: of all); what they were trained
    to is forgotten when the block ends in an error.  Raises UserError for a name that no agent has."""
    team = candidate.team()
    if unknown := next((name for name in names if name not in team), None):
        remedy = f"there are {', '.join(team)}"
        raise UserError(f"there is no agent {unknown!r} to be trained", place=f"{technique}: train", remedy=remedy)
    with ExitStack() as stack:
        learners = {}
        for name, member in team.items():
            if not names or name in names:
                policy = trainable(replace(member, name=_folder(candidate.name, name)), technique, lora, run)
                stack.enter_context(dropped_on_failure(policy))
                learners[name] = replace(member, policy=policy, kind="weights")
        whole = candidate.with_team(learners)
        yield whole, Team.of(whole, learners)


@contextmanager
def references(candidate: PolicyCandidate, team: Team) -> Iterator[dict[str, Policy]]:
    """The policies as they were before they were trained, for as long as they are needed."""
    before = candidate.team()
    with ExitStack() as stack:
        yield {name: stack.enter_context(as_it_is(before[name].policy)) for name in team.policies}


def _place(folder: Path, name: str) -> Path:
    return folder if name == MAIN else folder / AGENTS / name


def _folder(candidate: str, name: str) -> str:
    return candidate if name == MAIN else f"{candidate}-{name}"
