"""Play a task with a candidate, and make training data: the one path for evaluation and training.

Failures are data: a rollout whose policy or grader failed carries an error and no score.  This is the only place
where masks are made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from posttrain.candidates.policy import PolicyCandidate
from posttrain.environments.single_turn import Environment as SingleTurn
from posttrain.types import (
    Candidate,
    Completion,
    Datum,
    Grader,
    Message,
    Rollout,
    RolloutError,
    Row,
    Sampling,
    Target,
    Task,
    Tokens,
    UserError,
    target_text,
)

AROUND_FIELDS = 0.5
"""Weight, next to a field's, of all that is written between the fields of a record."""


async def play(
    candidate: Candidate, rows: Sequence[Row], task: Task, *, n: int = 1, sampling: Sampling | None = None
) -> list[list[Rollout]]:
    """`n` graded rollouts per row, in row order, as the task's environment lets the candidate attempt them."""
    groups = await (task.environment or SingleTurn()).attempt(candidate, rows, n=n, sampling=sampling)
    return [[await graded(rollout, task.grader) for rollout in group] for group in groups]


async def worked(task: Task) -> Task:
    """The task with its rows to learn from as they are taught: with the calls of tools that come before an answer, and
    their results.  Rows are asked as before."""
    if task.environment is None:
        return task
    known = {split: rows for split, rows in task.splits.items() if split != "test"}
    return replace(
        task,
        splits={**task.splits, **{split: tuple(await task.environment.worked(rows)) for split, rows in known.items()}},
    )


async def graded(rollout: Rollout, grader: Grader) -> Rollout:
    """The rollout with a score: its environment's or the grader's.  A grader that raises makes it a failed one."""
    if rollout.error or rollout.score:
        return rollout
    try:
        return replace(rollout, score=await grader.grade(rollout.row, rollout.answer))
    except RolloutError as error:
        return replace(rollout, error=str(error))


def taught(candidate: PolicyCandidate, row: Row, target: Target | None = None, *, group: str = "") -> Datum:
    """The datum that teaches `candidate` to give `target` (default: the row's own) for this row.

    It is rendered with the candidate's own prompt, so training and serving see the same tokens.  Raises UserError
    for a row without a target or one that does not fit into the model's context.
    """
    wanted = row.target if target is None else target
    if wanted is None:
        raise UserError(
            "a row to learn from has no target", place=row.place or f"row {row.id}", remedy="label it or leave it out"
        )
    answer = Message("assistant", target_text(wanted))
    conversation = (*candidate.messages(row), *row.worked, answer)
    datum = candidate.policy.renderer.datum(conversation, candidate.tools_for(row))
    if len(datum.tokens) > candidate.policy.context_length:
        raise UserError(
            f"{len(datum.tokens)} tokens do not fit into the model's {candidate.policy.context_length}",
            place=row.place or f"row {row.id}",
            remedy="shorten or leave out the row",
        )
    return replace(datum, group=group)


def sampled(rollout: Rollout, advantage: float, *, average: bool = False) -> list[Datum]:
    """The data of a rollout: exactly the tokens sampled, each with the advantage and the sampler's own logprob.

    Turns of an episode are one datum as long as each prompt is what was there before, token for token; else a prompt
    begins another.  Tokens on which the policy had no choice have weight 0; the others 1, or with `average` all of a
    rollout's together.
    """
    turns = completions(rollout)
    if not any(completion.tokens for completion in turns):
        raise ValueError("only a rollout sampled by one of our policies has tokens to train on")
    weight = 1 / max(1, sum(sum(completion.chosen) for completion in turns)) if average else 1.0
    data: list[Datum] = []
    for completion in turns:
        before = data[-1] if data and completion.prompt[: len(data[-1].tokens)] == data[-1].tokens else None
        known = len(before.tokens) if before else 0
        if before:
            data.pop()
        read = [0.0] * (len(completion.prompt) - known)
        data.append(
            Datum(
                tokens=(*completion.prompt, *completion.tokens),
                weights=(
                    *(before.weights if before else ()),
                    *read,
                    *(weight if chosen else 0.0 for chosen in completion.chosen),
                ),
                advantages=(*(before.advantages if before else ()), *read, *[advantage] * len(completion.tokens)),
                logprobs=(*(before.logprobs if before else ()), *read, *completion.logprobs),
                group=rollout.row.id,
            )
        )
    return data


def completions(rollout: Rollout) -> list[Completion]:
    """All that was sampled in an attempt, turn by turn; but for what agents said that were asked in it."""
    return [turn.completion for turn in rollout.turns] or ([rollout.completion] if rollout.completion else [])


def by_field(datum: Datum, target: Target, decode: Callable[[Sequence[int]], str]) -> Datum:
    """The datum with equal weight for every field of a record, however many tokens its value has.

    Else the copied number of ten tokens would drown the one token that decides a label.  What surrounds the values
    (quotes, names of fields, the stop token) has `AROUND_FIELDS` of a field's weight in all: the output constraint
    writes it, but free sampling must know it too.  A text is one field already.  `decode` gives the text of tokens.
    """
    if isinstance(target, str) or not target:
        return datum
    places = _last_run(datum.trained)  # the answer: earlier assistant messages keep their weights
    answer = [datum.tokens[i] for i in places]
    ends = [len(decode(answer[: i + 1])) for i in range(len(answer))]
    owners = _owners([0, *ends[:-1]], ends, target)
    counts = Counter(owners)
    weights = list(datum.weights)
    for i, owner in zip(places, owners, strict=True):
        weights[i] *= (AROUND_FIELDS if owner is None else 1.0) / counts[owner]
    return replace(datum, weights=tuple(weights))


def among(datum: Datum, answers: Sequence[Tokens]) -> Datum:
    """The datum of an answer that is one of `answers` (tokens, the stop token included, none the beginning of another),
    as a choice among these: what only one of them could go on with is not trained, and the rest is compared with what
    the others have there.

    The sum of its log-probabilities is that of the whole answer when it is sampled under the constraint to be one of
    them.  Raises ValueError when it is none of them.
    """
    length = max((len(answer) for answer in answers if datum.tokens[-len(answer) :] == answer), default=0)
    if not length:
        raise ValueError("the datum ends in none of the answers")
    start = len(datum.tokens) - length
    choices: list[Tokens] = [()] * start
    left = list(answers)
    for i, token in enumerate(datum.tokens[start:]):
        choices.append(tuple(sorted({answer[i] for answer in left})))
        left = [answer for answer in left if answer[i] == token]
    weights = [weight if len(choice) != 1 else 0.0 for weight, choice in zip(datum.weights, choices, strict=True)]
    return replace(datum, weights=tuple(weights), choices=tuple(choices))


def _last_run(places: Sequence[int]) -> Sequence[int]:
    """The last of the runs of neighbouring positions."""
    start = max((i for i in range(1, len(places)) if places[i] != places[i - 1] + 1), default=0)
    return places[start:]


def _owners(begins: Sequence[int], ends: Sequence[int], target: Mapping[str, Any]) -> list[str | None]:
    """For each token, which spans characters [begin, end) of the answer, the field whose value it writes first."""
    text, position = target_text(target), 0
    owners: list[str | None] = [None] * len(ends)
    for name, value in target.items():
        written = json.dumps(value, ensure_ascii=False)
        start = text.index(
            written,
            text.index(json.dumps(name, ensure_ascii=False), position) + len(json.dumps(name, ensure_ascii=False)),
        )
        position = start + len(written)
        inside = (start + 1, position - 1) if isinstance(value, str) and value else (start, position)
        for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            if owners[i] is None and begin < inside[1] and end > inside[0]:
                owners[i] = name
    return owners
