"""One candidate on one split, row by row: what was asked, what was said, how it was judged.

Everything shown later (scores, intervals, slices, paired tests, the browser of rows) is computed from this
record, and it is the file `<candidate>/<split>.jsonl` of a run: a header line, then one line a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from posttrain.environments._agents import by_agent
from posttrain.evaluation.form import has_form
from posttrain.evaluation.statistics import (
    Difference,
    Interval,
    difference_of_means,
    difference_of_shares,
    mean_interval,
    wilson_interval,
)
from posttrain.rollouts import completions
from posttrain.runs import SCHEMA, write_text
from posttrain.types import Output, Rollout, ScoredBy, Task, UserError, target_text


@dataclass(frozen=True)
class Attempt:
    """One row, once.  `messages` are {role, content} as sent; `error` is "layer: message" of a failed rollout.

    `valid` says whether the answer had the form the task asks for, by its grader or else its output; None where any
    text will do, and for a failed rollout.
    `prompt_tokens` and `completion_tokens` are those of all turns, and of all agents that were asked; 0 where there is
    no model.
    """

    row_id: str
    slices: tuple[str, ...]
    text: str
    target: str | None
    messages: tuple[Mapping[str, str], ...]
    answer: str
    value: float
    passed: bool
    parts: Mapping[str, float]
    valid: bool | None = None
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's
    confidence: float | None = None
    seconds: float = 0.0

    @staticmethod
    def from_rollout(rollout: Rollout, output: Output) -> Attempt:
        """The record of a graded rollout.  Raises ValueError when it has neither a score nor an error."""
        row, score, completion = rollout.row, rollout.score, rollout.completion
        if score is None and not rollout.error:
            raise ValueError(f"the rollout of row {row.id} was never graded")
        read = [each for _, part in by_agent(rollout) for each in completions(part)]
        valid = score.parts.get("valid", has_form(rollout.answer, output)) if score else None
        return Attempt(
            row_id=row.id,
            slices=row.slices,
            text=row.text,
            target=None if row.target is None else target_text(row.target),
            messages=tuple({"role": message.role, "content": message.content} for message in rollout.messages),
            answer=rollout.answer,
            value=score.value if score else 0.0,
            passed=bool(score and score.passed),
            parts=dict(score.parts) if score else {},
            valid=None if valid is None else bool(valid),
            error=rollout.error,
            prompt_tokens=sum(each.prompt_tokens for each in read),
            completion_tokens=sum(each.completion_tokens for each in read),
            cached_tokens=sum(each.cached_tokens for each in read),
            confidence=completion.confidence if completion else None,
            seconds=rollout.seconds,
        )


@dataclass(frozen=True)
class SliceScore:
    """The score of the rows of one slice."""

    name: str
    score: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class Evaluation:
    """All attempts of one candidate at one split, in row order."""

    candidate: str
    task: str
    task_hash: str
    split: str
    attempts: tuple[Attempt, ...]
    scored_by: ScoredBy = "right"

    @staticmethod
    def from_rollouts(candidate: str, task: Task, split: str, rollouts: Sequence[Rollout]) -> Evaluation:
        """The record of graded rollouts, one a row."""
        attempts = tuple(Attempt.from_rollout(rollout, task.output) for rollout in rollouts)
        if len({attempt.row_id for attempt in attempts}) != len(attempts):
            raise ValueError("an evaluation has one attempt a row")
        return Evaluation(candidate, task.name, task.hash, split, attempts, task.scored_by)

    @property
    def n(self) -> int:
        return len(self.attempts)

    @property
    def score(self) -> float:
        """Share of rows wholly right, or mean grade, whichever the task is scored by.  A failed rollout is not right,
        and its grade 0; `error_rate` says how many there were."""
        return self._mean_outcome(self.attempts)

    @cached_property
    def interval(self) -> Interval:
        return self._interval(self.attempts)

    def outcome(self, attempt: Attempt) -> float:
        """What an attempt counts for: its grade, or 1 when it is wholly right and else 0."""
        return attempt.value if self.scored_by == "grade" else float(attempt.passed)

    def _mean_outcome(self, attempts: Sequence[Attempt]) -> float:
        return _mean([self.outcome(attempt) for attempt in attempts]) or 0.0

    def _interval(self, attempts: Sequence[Attempt]) -> Interval:
        outcomes = [self.outcome(attempt) for attempt in attempts]
        if self.scored_by == "grade":
            return mean_interval(outcomes)
        return wilson_interval(int(sum(outcomes)), len(outcomes))

    @property
    def error_rate(self) -> float:
        return _mean([bool(attempt.error) for attempt in self.attempts]) or 0.0

    @property
    def valid_rate(self) -> float | None:
        """Share of judged answers in the form asked for; None where the grader does not say."""
        return _mean([attempt.valid for attempt in self.attempts if attempt.valid is not None])

    @property
    def prompt_tokens(self) -> float:
        """Mean per answered request."""
        return _mean([attempt.prompt_tokens for attempt in self.attempts if not attempt.error]) or 0.0

    @property
    def completion_tokens(self) -> float:
        """Mean per answered request."""
        return _mean([attempt.completion_tokens for attempt in self.attempts if not attempt.error]) or 0.0

    def parts(self) -> dict[str, float]:
        """Mean of every part of the score (fields, criteria) over the rows that have it."""
        names = dict.fromkeys(name for attempt in self.attempts for name in attempt.parts)
        return {
            name: _mean([attempt.parts[name] for attempt in self.attempts if name in attempt.parts]) or 0.0
            for name in names
        }

    def slices(self) -> list[SliceScore]:
        """One score per slice, by name."""
        grouped: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            for name in attempt.slices:
                grouped.setdefault(name, []).append(attempt)
        return [
            SliceScore(name, self._mean_outcome(members), self._interval(members), len(members))
            for name, members in sorted(grouped.items())
        ]

    def worst_slice(self, at_least: int = 5) -> SliceScore | None:
        """The slice with the lowest score, among those of `at_least` rows where there are any."""
        slices = self.slices()
        return min([s for s in slices if s.n >= at_least] or slices, key=lambda s: (s.score, -s.n), default=None)

    def against(self, other: Evaluation) -> Difference:
        """This candidate against another on the same rows.  Raises UserError when the rows are not the same."""
        refuse_unlike(self, other)
        theirs = {attempt.row_id: attempt for attempt in other.attempts}
        couples = [(attempt, theirs[attempt.row_id]) for attempt in self.attempts]
        if self.scored_by == "grade":
            return difference_of_means([one.value for one, _ in couples], [two.value for _, two in couples])
        return difference_of_shares([one.passed for one, _ in couples], [two.passed for _, two in couples])

    def write(self, path: Path) -> None:
        """Writes the record whole.  Raises UserError (disk)."""
        header = {
            "schema": SCHEMA,
            "candidate": self.candidate,
            "task": self.task,
            "task_hash": self.task_hash,
            "split": self.split,
            "n": self.n,
            "scored_by": self.scored_by,
        }
        lines = [header, *({"schema": SCHEMA, **asdict(attempt)} for attempt in self.attempts)]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    @staticmethod
    def read(path: Path) -> Evaluation:
        """Reads what `write` wrote.  Raises UserError when it is missing, cut short or of another schema."""
        try:
            header, *lines = _lines(path)
            if (header["schema"], header["n"]) != (SCHEMA, len(lines)):
                raise ValueError(header)
            return Evaluation(
                header["candidate"],
                header["task"],
                header["task_hash"],
                header["split"],
                tuple(map(_attempt, lines)),
                header.get("scored_by", "right"),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(
                "not a whole evaluation of this version",
                place=str(path),
                remedy="go on with its run (posttrain compare --resume RUN): only this candidate is done again",
            ) from error


def _attempt(line: Mapping[str, Any]) -> Attempt:
    fields = {name: value for name, value in line.items() if name != "schema"}
    return Attempt(**{**fields, "slices": tuple(line["slices"]), "messages": tuple(line["messages"])})


def refuse_unlike(one: Evaluation, other: Evaluation) -> None:
    """Raises UserError unless both answer the same rows of the same version of a task."""
    place = f"{one.candidate} and {other.candidate}"
    if one.scored_by != other.scored_by:
        raise UserError(
            f"one is scored by {one.scored_by}, the other by {other.scored_by}",
            place=place,
            remedy="evaluate both again",
        )
    if one.task_hash != other.task_hash:
        raise UserError(
            f"evaluated on different versions of a task ({one.task} {one.task_hash[:12]}, "
            f"{other.task} {other.task_hash[:12]})",
            place=place,
            remedy="evaluate both on one version",
        )
    if {attempt.row_id for attempt in one.attempts} != {attempt.row_id for attempt in other.attempts}:
        raise UserError(
            f"evaluated on different rows ({one.split}: {one.n}, {other.split}: {other.n})",
            place=place,
            remedy="evaluate both on the same split, every row of it",
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records up to the first that is broken.  Lines end at "\\n" alone: answers may hold any other separator."""
    records = []
    try:
        for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
            records.append(dict(json.loads(line)))
    except (FileNotFoundError, TypeError, ValueError):
        pass
    return records


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
