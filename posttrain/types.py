"""The nouns and the protocols: what everything else is made of.  Standard library only.

A *task* says what is wanted, a *candidate* answers its rows, a *technique* turns one candidate into a better
one, a *policy* is one set of weights behind five verbs, a *grader* judges an answer.  Nothing here computes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from posttrain.errors import LearntNothing as LearntNothing
from posttrain.errors import RolloutError as RolloutError
from posttrain.errors import UserError as UserError
from posttrain.optimisers import Optimiser

# ---------------------------------------------------------------------------------------------------------
# Conversations, rows, tasks

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation.  `weight` 0 keeps an assistant message out of the loss (OpenAI's field).  `tokens`
    are those that a policy sampled for it, its stop token included: they come back as they were."""

    role: Role
    content: str
    weight: float = 1.0
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str = ""
    tokens: tuple[int, ...] = field(default=(), compare=False, repr=False)


Target = str | Mapping[str, Any]
"""A desired output: a text, or a record (a mapping from field to value)."""


def target_text(target: Target) -> str:
    """The text a model is taught to write for `target`: records become compact JSON in their own key order."""
    return target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)


@dataclass(frozen=True)
class Row:
    """One item of a task: what is asked, and, where known, what is wanted.

    `messages` is the conversation up to the answer, without the task's instructions, and ends with a user (or tool)
    message.  `rejected` is a worse answer (preference pairs), `answer` what the user's running system said, `contexts`
    what that had retrieved, `slices` the groups shown apart in reports, `place` where it was read, for messages.
    `worked` is what is said between the question and the target by one who knows how: calls of tools, their results.
    """

    id: str
    messages: tuple[Message, ...]
    target: Target | None = None
    rejected: str | None = None
    answer: str | None = None
    contexts: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    slices: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    worked: tuple[Message, ...] = ()
    place: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The last thing asked: what floors and retrievers look at."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Document:
    """A text that answers may depend on."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Output:
    """The form every answer must have; the same for every candidate of a comparison.

    At most one of `labels` (a closed set of texts) and `schema` (a JSON schema) is given; with neither the
    answer is free text.  `max_tokens` bounds its length.
    """

    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 128


@dataclass(frozen=True)
class Score:
    """A grader's verdict on one answer: `value` in [0, 1]; `parts` are shown beside it (fields, criteria)."""

    value: float
    passed: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    explanation: str = ""


class Grader(Protocol):
    """Judges an answer.  Raises only when the grader itself is broken: a bad answer is a low score."""

    async def grade(self, row: Row, answer: str) -> Score: ...


Split = Literal["train", "dev", "test"]
ScoredBy = Literal["right", "grade"]
"""What the score of a candidate is: the share of rows wholly right, or the mean of their grades (`Score.value`)."""


@dataclass(frozen=True)
class Task:
    """What is wanted and how to tell.  Knows nothing of models.  `hash` covers rows, grader and documents.

    `gold` is a second grader that nothing is trained on: it tells whether what the first one pays for is still wanted.
    """

    name: str
    version: str
    hash: str
    instructions: str
    splits: Mapping[str, tuple[Row, ...]]
    grader: Grader
    output: Output
    scored_by: ScoredBy = "right"
    environment: Environment | None = None  # None: the row asks, the candidate answers, and that is all
    documents: tuple[Document, ...] = ()
    gold: Grader | None = None
    ceiling: float | None = None  # agreement of independent labellers with the gold answer, share of rows
    folder: Path | None = None
    notes: tuple[str, ...] = ()  # what was guessed, in words, when the task was made from a bare file

    def rows(self, split: str) -> tuple[Row, ...]:
        """The rows of a split.  Raises UserError when the task has none."""
        if not self.splits.get(split):
            raise UserError(
                f"task {self.name} has no {split} rows",
                place=str(self.folder or self.name),
                remedy=f"add {split}.jsonl, or let `posttrain init` split one file",
            )
        return self.splits[split]


# ---------------------------------------------------------------------------------------------------------
# Tokens: prompts, completions, rollouts, data

Tokens = tuple[int, ...]
Prompt = Tokens | tuple[Message, ...]
"""What a policy's renderer makes of messages: tokens, or for a remote chat endpoint the messages themselves."""

StopReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Sampling:
    """How to sample.  Temperature 0 is greedy.  `seed` makes a request reproducible."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    output: Output | None = None  # constrain the answer to this form
    top_logprobs: int = 0  # tell of so many of the likeliest tokens at each place


@dataclass(frozen=True)
class TokensUsed:
    """Tokens that a hosted model has read and written; `cached` of those read it knew from before."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0

    def __add__(self, other: TokensUsed) -> TokensUsed:
        return TokensUsed(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)

    def __sub__(self, other: TokensUsed) -> TokensUsed:
        return TokensUsed(self.prompt - other.prompt, self.completion - other.completion, self.cached - other.cached)


@dataclass(frozen=True)
class Completion:
    """What was sampled for one prompt.

    `tokens` includes the stop token (it is trained); `text` does not.  `logprobs` are natural-log
    probabilities of `tokens` under the policy at the sampling temperature, before truncation and constraint;
    0.0 where `chosen` is False, that is where the output constraint left no choice.  `confidence` is the
    probability of the whole text among the texts the constraint allowed (None where the engine cannot say).
    `top_logprobs` are for each token the likeliest in its place with their log-probabilities, best first (none where
    `chosen` is False), when the sampling asks for them.
    """

    text: str
    stop_reason: StopReason
    tokens: Tokens = ()
    logprobs: tuple[float, ...] = ()
    chosen: tuple[bool, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()
    confidence: float | None = None
    version: int = 0
    prompt: Prompt = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's, what an endpoint knew from before
    request: int = 0  # which of those sent for this prompt brought it: a hosted prompt is billed once for each


@dataclass(frozen=True)
class Turn:
    """One time that a candidate was asked in an episode: what it saw, what it said, what that earned."""

    messages: tuple[Message, ...]
    completion: Completion
    reward: float = 0.0


@dataclass(frozen=True)
class Rollout:
    """One recorded attempt at a row.  A failed one carries `error` ("layer: message") and no score.  Of an episode,
    `turns` are all of it, and `messages` and `completion` those of its last; `asked` are the attempts of the agents
    that were asked in it, each with the name of its `agent`, in order."""

    row: Row
    messages: tuple[Message, ...] = ()
    completion: Completion | None = None
    score: Score | None = None
    error: str = ""
    seconds: float = 0.0
    turns: tuple[Turn, ...] = ()
    agent: str = ""
    asked: tuple[Rollout, ...] = ()

    @property
    def answer(self) -> str:
        return self.completion.text if self.completion else ""


@dataclass(frozen=True)
class Datum:
    """One training sequence.  All per-token fields align with `tokens`; entry i concerns predicting tokens[i].

    A position with weight 0 is not trained (its logits are never computed).  `logprobs` are the sampler's, and
    `reference_logprobs` a frozen policy's.  Where `choices` names tokens, only they could have come: probabilities are
    shares of theirs.  Data of one `group` (a pair, attempts at a row) reach the loss together.
    """

    tokens: Tokens
    weights: tuple[float, ...]
    advantages: tuple[float, ...] = ()
    logprobs: tuple[float, ...] = ()
    reference_logprobs: tuple[float, ...] = ()
    choices: tuple[Tokens, ...] = ()
    group: str = ""

    @property
    def trained(self) -> list[int]:
        """The positions the loss sees, in order."""
        return [i for i, weight in enumerate(self.weights) if weight != 0]


# ---------------------------------------------------------------------------------------------------------
# Policies

Metrics = dict[str, float]
OnText = Callable[[int, int, str], None]
"""Streaming: called on the event loop with (index of the prompt, index of its completion, new text)."""
Loss = Callable[..., Any]
"""`loss(logprobs, data) -> (sum, metrics)`: logprobs is one tensor per datum, at its trained positions."""


@dataclass(frozen=True)
class LoRA:
    """Shape of an adapter (arXiv:2106.09685): delta = (alpha / rank) * B A on each targeted linear layer.

    `targets` are last parts of module names; empty means every linear layer but the output head.  `layers` is the
    share of the decoder layers that is adapted, counted from the top: half of them train in half the time.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    layers: float = 1.0


@runtime_checkable
class Renderer(Protocol):
    """Messages to tokens and back, for one model family."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Prompt:
        """The prompt that asks for the next assistant message."""

    def datum(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Datum:
        """A training sequence: every assistant message is weighted by its `weight`, stop token included."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""

    def count(self, text: str) -> int:
        """Number of tokens in a bare text."""


class Policy(Protocol):
    """One set of weights: a base model plus at most one adapter.  The verbs are those of the Tinker API."""

    name: str
    model: str
    trainable: bool
    renderer: Renderer
    context_length: int
    sampling_bytes: int  # main memory that sampling may take beside the weights; 0 where another machine samples

    async def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, sampling: Sampling, on_text: OnText | None = None
    ) -> list[list[Completion]]: ...

    async def logprobs(self, data: Sequence[Datum]) -> list[list[float]]:
        """Log-probabilities at the trained positions of each datum (temperature 1)."""

    async def forward_backward(self, data: Sequence[Datum], loss: Loss, *, normaliser: float = 1.0) -> Metrics:
        """Adds the gradient of loss / normaliser to what has accumulated.

        `loss` is a pure function: it is called for parts of the data, groups kept together, maybe at the same time.
        """

    def keep_step(self, others: Sequence[Policy]) -> Callable[[Policy], None]:
        """From here on a forward_backward of these policies, to be awaited, may wait for the others', to be one batch.
        A policy that samples leaves, and is answered when all have: ask at one time, or let the others leave by what is
        given back first.  Who has left will wait for none, and none for it."""

    async def optim_step(self, settings: Optimiser) -> Metrics:
        """Takes one step along the gradient, which is used up."""

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        """Writes the adapter in PEFT's file format (and the optimiser's state, to resume)."""

    async def load(self, folder: Path) -> None: ...

    def frozen(self) -> Policy:
        """This policy as it is now, never trained: a reference, a teacher, a KL anchor."""

    def fork(self, name: str, lora: LoRA | None = None, *, seed: int = 0) -> Policy:
        """A trainable policy that begins as this one.  `lora` shapes a fresh adapter when there is none yet."""

    def drop(self) -> None:
        """Forget this policy's adapter and free its memory."""


# ---------------------------------------------------------------------------------------------------------
# Candidates, and the worlds they are put into

Kind = Literal["floor", "prompt", "weights", "given"]


class Candidate(Protocol):
    """Anything that can answer a row.  Immutable: teaching gives back a new one."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def model(self) -> str:
        """The base model or endpoint; "" where there is none."""

    async def attempt(
        self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None, on_text: OnText | None = None
    ) -> list[list[Rollout]]:
        """`n` ungraded rollouts per row, in row order.  A failure is a rollout with an error, not an exception.

        `sampling` None means: as this candidate is served (greedy, under the task's output constraint).
        """

    async def save(self, folder: Path) -> None:
        """Writes candidate.json (with `class` and everything else needed) and any weights; no pickle."""


class Environment(Protocol):
    """The world in which rows are attempted: who speaks when, until there is an answer."""

    async def attempt(
        self, candidate: Candidate, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Rollout]]:
        """`n` rollouts per row, in row order; those without a score or an error are the grader's to judge."""

    async def worked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows as they are taught: with `worked` and `tools`, where there is something to be done before the
        answer."""
