"""A policy with its prompt: instructions, demonstrations, retrieved passages, and the form of its answers.

The conversation put to the policy is always

    system: instructions, and the tools, as the renderer writes them
    user / assistant: demonstrations, if any
    ... the row's own messages; the last one preceded by passages, if any: those this candidate retrieves, else those
        that the row came with (`Row.contexts`, what a running system had retrieved for it), each as

            passage
            (empty line)
            passage
            (empty line)
            ---
            the message
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from posttrain.candidates import OpenPolicy
from posttrain.environments._agents import MAIN, Agent, agents_of, inner_name
from posttrain.retrieval.bm25 import BM25Retriever
from posttrain.runs import read_json, write_json
from posttrain.types import (
    Completion,
    Document,
    Kind,
    Message,
    OnText,
    Output,
    Policy,
    Prompt,
    Rollout,
    RolloutError,
    Row,
    Sampling,
    Task,
    UserError,
)

SAVED = ("name", "kind", "model", "instructions", "tools", "nearest", "passages", "votes", "votes_temperature")
"""The fields of a candidate that candidate.json holds as they are."""

AGENTS = "agents"
"""The folder of its agents, each in one of its own."""


@dataclass(frozen=True)
class Demonstration:
    """A worked example: the row it came from, what was asked, what should be answered."""

    row_id: str
    asked: str
    answer: str


@dataclass(frozen=True)
class PolicyCandidate:
    """See the module.  `nearest` > 0 picks that many demonstrations per row by BM25 instead of showing all;
    `passages` > 0 retrieves that many documents per row; `votes` > 1 samples that often and takes the majority.
    `tools` are shown with every row that brings none of its own.  `agents` are those whom it may ask in an episode."""

    name: str
    kind: Kind
    policy: Policy
    instructions: str
    output: Output
    demonstrations: tuple[Demonstration, ...] = ()
    nearest: int = 0
    documents: tuple[Document, ...] = ()
    passages: int = 0
    votes: int = 1
    votes_temperature: float = 0.7
    details: Mapping[str, Any] = field(default_factory=dict)  # how it was taught; shown in reports
    tools: tuple[Mapping[str, Any], ...] = ()
    agents: Mapping[str, PolicyCandidate] = field(default_factory=dict)

    @staticmethod
    def of(name: str, policy: Policy, task: Task) -> PolicyCandidate:
        """What every technique begins with: the task's instructions and output form, and the tools all its rows share.

        Tools that differ from row to row are part of what is asked: whoever asks brings them.
        """
        first, *others = [row.tools for rows in task.splits.values() for row in rows] or [()]
        shared = first if all(tools == first for tools in others) else ()
        agents = _begin(policy, agents_of(task.environment))
        return PolicyCandidate(name, "prompt", policy, task.instructions, task.output, tools=shared, agents=agents)

    @property
    def model(self) -> str:
        return self.policy.model

    @cached_property
    def _passages(self) -> BM25Retriever:
        return BM25Retriever(self.documents)

    @cached_property
    def _demonstrations(self) -> tuple[BM25Retriever, dict[str, Demonstration]]:
        by_id = {str(i): demonstration for i, demonstration in enumerate(self.demonstrations)}
        return BM25Retriever([Document(i, "", shown.asked) for i, shown in by_id.items()]), by_id

    def shown(self, row: Row) -> list[Demonstration]:
        """The demonstrations shown for a row, the nearest last; never the row itself."""
        if not self.nearest:
            return [shown for shown in self.demonstrations if shown.row_id != row.id]
        retriever, by_id = self._demonstrations
        found = [by_id[document.id] for document, _ in retriever.search(row.text, self.nearest + 1)]
        return [shown for shown in found if shown.row_id != row.id][: self.nearest][::-1]

    def retrieved(self, row: Row) -> list[Document]:
        """The documents shown for a row, best first."""
        return [document for document, _ in self._passages.search(row.text, self.passages)] if self.passages else []

    def team(self, name: str = MAIN) -> dict[str, PolicyCandidate]:
        """This candidate and all whom it may ask, or they may, by name: "main", "reader", "researcher.reader"."""
        found = {name: self}
        for inner, agent in self.agents.items():
            found |= agent.team(inner_name(name, inner))
        return found

    def with_team(self, team: Mapping[str, PolicyCandidate], name: str = MAIN) -> PolicyCandidate:
        """This candidate with those of `team` in the place of its own of that name; who may ask whom stays."""
        agents = {inner: agent.with_team(team, inner_name(name, inner)) for inner, agent in self.agents.items()}
        return replace(team.get(name, self), agents=agents)

    def forget(self) -> None:
        """Frees the memory of the adapters that were trained."""
        for candidate in self.team().values():
            if candidate.kind == "weights":
                candidate.policy.drop()

    def tools_for(self, row: Row) -> tuple[Mapping[str, Any], ...]:
        """The tools shown with a row: its own, else those of this candidate."""
        return row.tools or self.tools

    def prompt(self, row: Row) -> Prompt:
        """What the policy is given for a row."""
        return self.policy.renderer.prompt(self.messages(row), self.tools_for(row))

    def messages(self, row: Row) -> tuple[Message, ...]:
        """The conversation that asks for this row's answer.  Only the row's own assistant messages are trained."""
        messages = [Message("system", self.instructions)] if self.instructions else []
        for shown in self.shown(row):
            messages += [Message("user", shown.asked), Message("assistant", shown.answer, weight=0.0)]
        *earlier, last = row.messages
        retrieved = [f"{document.title}\n{document.text}" for document in self.retrieved(row)]
        passages = retrieved if self.passages else row.contexts
        if passages:
            last = replace(last, content="\n\n".join((*passages, f"---\n{last.content}")))
        return (*messages, *earlier, last)

    def serving(self) -> Sampling:
        """How this candidate answers when it is evaluated or served: greedy, under the task's output constraint."""
        return Sampling(max_tokens=self.output.max_tokens, output=self.output)

    async def attempt(
        self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None, on_text: OnText | None = None
    ) -> list[list[Rollout]]:
        """See types.Candidate."""
        conversations = [self.messages(row) for row in rows]
        started = time.monotonic()
        if self.votes > 1 and sampling is None:
            voting = replace(self.serving(), temperature=self.votes_temperature)
            ballots = await self._sample(rows, conversations, n * self.votes, voting, None)
            outcomes = [
                [_majority(ballot[i * self.votes : (i + 1) * self.votes]) for i in range(n)] for ballot in ballots
            ]
        else:
            outcomes = await self._sample(rows, conversations, n, sampling or self.serving(), on_text)
        seconds = time.monotonic() - started
        return [
            [
                Rollout(row, messages, seconds=seconds, error=outcome)
                if isinstance(outcome, str)
                else Rollout(row, messages, outcome, seconds=seconds)
                for outcome in given
            ]
            for row, messages, given in zip(rows, conversations, outcomes, strict=True)
        ]

    async def _sample(
        self,
        rows: Sequence[Row],
        conversations: Sequence[Sequence[Message]],
        n: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> list[list[Completion | str]]:
        """Per row n completions, or the errors that took their place."""
        prompts = [
            self.policy.renderer.prompt(messages, self.tools_for(row))
            for messages, row in zip(conversations, rows, strict=True)
        ]
        remote = getattr(self.policy, "remote", False)
        room = self.policy.context_length - sampling.max_tokens
        fits = [i for i, prompt in enumerate(prompts) if remote or len(prompt) <= room]
        numbers = [fits] if not remote else [[i] for i in fits]
        results: list[list[Completion | str]] = [
            [
                f"policy: a prompt of {len(prompt)} tokens leaves no room in the context of "
                f"{self.policy.context_length}; shorten or leave out {row.place or f'row {row.id}'}"
            ]
            * n
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        batches = [
            self._boundary([prompts[i] for i in batch], n, sampling, _renumbered(on_text, batch))
            for batch in numbers
            if batch
        ]
        for batch, outcomes in zip([batch for batch in numbers if batch], await asyncio.gather(*batches), strict=True):
            for i, outcome in zip(batch, outcomes, strict=True):
                results[i] = outcome
        return results

    async def _boundary(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        on_text: OnText | None,
    ) -> list[list[Completion | str]]:
        try:
            return [list(group) for group in await self.policy.sample(prompts, n=n, sampling=sampling, on_text=on_text)]
        except RolloutError as error:  # one request to an endpoint failed: that rollout failed, not the run
            return [[str(error)] * n for _ in prompts]

    def described(self) -> dict[str, Any]:
        """All but its weights."""
        return {
            "schema": 1,
            "class": "policy",
            **{key: getattr(self, key) for key in SAVED},
            "details": self.details,
            "output": asdict(self.output),
            "adapter": self.kind == "weights",
            "demonstrations": [asdict(shown) for shown in self.demonstrations],
            "documents": [asdict(document) for document in self.documents],
            "agents": [*self.agents],
        }

    async def save(self, folder: Path) -> None:
        """See types.Candidate.  Weights, where there are any, go to adapter/ in PEFT's format; agents to agents/."""
        if self.kind == "weights":
            await self.policy.save(folder / "adapter")
        write_json(folder / "candidate.json", self.described())
        for name, agent in self.agents.items():
            await agent.save(folder / AGENTS / name)


def load(folder: Path, data: Mapping[str, Any], open_policy: OpenPolicy | None) -> PolicyCandidate:
    """The candidate saved in `folder`, whose candidate.json holds `data`."""
    if open_policy is None:
        raise UserError("this candidate needs a model", place=str(folder), remedy="load it with an engine at hand")
    policy = open_policy(data["model"], folder / "adapter" if data["adapter"] else None)
    output = Output(tuple(data["output"]["labels"]), data["output"]["schema"], data["output"]["max_tokens"])
    return PolicyCandidate(
        data["name"],
        data["kind"],
        policy,
        data["instructions"],
        output,
        tuple(Demonstration(**shown) for shown in data["demonstrations"]),
        data["nearest"],
        tuple(Document(**document) for document in data["documents"]),
        data["passages"],
        data["votes"],
        data["votes_temperature"],
        data["details"],
        tools=tuple(data.get("tools", ())),
        agents={
            name: load(folder / AGENTS / name, read_json(folder / AGENTS / name / "candidate.json"), open_policy)
            for name in data.get("agents", ())
        },
    )


def _begin(policy: Policy, agents: Mapping[str, Agent]) -> dict[str, PolicyCandidate]:
    """The candidates for the agents of a world, as everybody begins: the base and its instructions."""
    return {
        name: PolicyCandidate(
            name, "prompt", policy, agent.instructions, agent.output, agents=_begin(policy, agent.agents)
        )
        for name, agent in agents.items()
    }


def _majority(ballot: Sequence[Completion | str]) -> Completion | str:
    """The commonest answer (the first among equals), its confidence its share, its cost that of all votes: what they
    wrote, and the prompt once for each request that brought some."""
    votes = [vote for vote in ballot if isinstance(vote, Completion)]
    if not votes:
        return ballot[0]
    text, count = Counter(vote.text for vote in votes).most_common(1)[0]
    winner = next(vote for vote in votes if vote.text == text)
    prompts = {vote.request: vote for vote in votes}.values()
    return replace(
        winner,
        confidence=count / len(ballot),
        prompt_tokens=sum(vote.prompt_tokens for vote in prompts),
        cached_tokens=sum(vote.cached_tokens for vote in prompts),
        completion_tokens=sum(vote.completion_tokens for vote in votes),
    )


def _renumbered(on_text: OnText | None, batch: Sequence[int]) -> OnText | None:
    if on_text is None:
        return None
    return lambda prompt, completion, text: on_text(batch[prompt], completion, text)
