"""Which form of tools does a model use better?  The same task, its tools offered in one form after the other.

Candidates are taught in each form and judged on the same rows; where there is a time limit, each form gets as many
steps as there was time for in the first.  Forms are compared pairwise within a candidate, by the rows that one got
right and the other did not (exact McNemar, Holm over all pairs).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.conclude import folder_name
from posttrain.environments.tools import Environment
from posttrain.evaluation.statistics import (
    Difference,
    Interval,
    difference_of_shares,
    holm,
    wilson_interval,
)
from posttrain.evaluation.tool_use import Use, use_of
from posttrain.rollouts import play
from posttrain.runs import Budget, Run, write_text
from posttrain.techniques import _chain as chain
from posttrain.types import Policy, Rollout, Task, UserError

ROWS_AT_ONCE = 40

TRAINING = 0.7
"""Of the time there is, shared equally; the rest is for judging."""


@dataclass(frozen=True)
class Judged:
    """A candidate with its tools in one form."""

    candidate: str
    form: str
    right: tuple[bool, ...]
    failed: int
    uses: tuple[Use, ...]

    @property
    def interval(self) -> Interval:
        return wilson_interval(sum(self.right), len(self.right))

    @property
    def valid(self) -> float | None:
        """The share of calls that could be made; None where there were none."""
        calls = sum(use.calls for use in self.uses)
        return sum(use.valid for use in self.uses) / calls if calls else None

    def share(self, what: str) -> float | None:
        """The share of rows with something `missed` or `needless`, of those that say what they need."""
        told = [getattr(use, what) for use in self.uses if getattr(use, what) is not None]
        return sum(map(bool, told)) / len(told) if told else None

    def tokens(self, what: str) -> float:
        """Tokens a row, `prompt` or `completion`."""
        return sum(getattr(use, f"{what}_tokens") for use in self.uses) / len(self.uses)

    def report(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate,
            "form": self.form,
            "n": len(self.right),
            "success": sum(self.right) / len(self.right),
            "interval": list(self.interval),
            "valid_calls": self.valid,
            "rows_with_a_needed_call_missed": self.share("missed"),
            "rows_with_a_needless_call": self.share("needless"),
            "calls_a_row": sum(use.calls for use in self.uses) / len(self.uses),
            "prompt_tokens_a_row": self.tokens("prompt"),
            "completion_tokens_a_row": self.tokens("completion"),
            "failed": self.failed,
            "rows": [{"right": right, **asdict(use)} for right, use in zip(self.right, self.uses, strict=True)],
        }


@dataclass(frozen=True)
class Apart:
    """Two forms of one candidate: the difference of their shares, first minus second."""

    candidate: str
    first: str
    second: str
    difference: Difference
    p_adjusted: float


@dataclass(frozen=True)
class FormsCompared:
    """All that was judged, and every two forms of a candidate."""

    task: str
    model: str
    split: str
    judged: tuple[Judged, ...]
    apart: tuple[Apart, ...]

    @property
    def sentences(self) -> list[str]:
        """For each candidate, what can be told of the forms."""
        return [self._sentence(name) for name in dict.fromkeys(judged.candidate for judged in self.judged)]

    def _sentence(self, name: str) -> str:
        own = sorted((one for one in self.judged if one.candidate == name), key=lambda one: -sum(one.right))
        best, *others = own
        worse = []
        for other in others:
            (pair,) = [
                each
                for each in self.apart
                if each.candidate == name and {each.first, each.second} == {best.form, other.form}
            ]
            if pair.p_adjusted < 0.05:
                worse.append(other.form)
        if not any(best.right):
            return f"{name}: no form led to a right answer."
        if not worse:
            return f"{name}: the forms cannot be told apart on {len(best.right)} rows."
        equal = [other.form for other in others if other.form not in worse]
        beside = f"; not told apart from {', '.join(equal)}" if equal else ""
        return f"{name}: {best.form} is used better than {', '.join(worse)}{beside}."


async def compare_forms(
    task: Task, policy: Policy, run: Run, forms: Sequence[str], candidates: Sequence[str], split: str = "test"
) -> FormsCompared:
    """Teaches and judges every candidate in every form.  Raises UserError for a task without tools."""
    environment = task.environment
    if not isinstance(environment, Environment):
        raise UserError(
            f"{task.name} has no tools", place=str(task.folder or task.name), remedy='[environment] name = "tools"'
        )
    judged: list[Judged] = []
    trained = [expression for expression in candidates if chain.kind(expression) == "weights"]
    each = None
    if trained and run.budget.minutes is not None:
        each = TRAINING * run.budget.minutes / len(trained) / len(forms)
    for expression in candidates:
        budget = Budget(minutes=each if expression in trained else None)
        for form in forms:
            offered = replace(task, environment=environment.in_form(form))
            start = PolicyCandidate.of(policy.model, policy, offered)
            candidate = await chain.teach(expression, start, offered, _inside(run, f"{expression}-{form}", budget))
            if budget.minutes is not None and isinstance(candidate, PolicyCandidate):
                budget = Budget(steps=int(candidate.details["training"]["steps"]))
            judged.append(await _judged(f"{expression}, {form}", expression, form, candidate, offered, split, run))
            if isinstance(candidate, PolicyCandidate):
                candidate.forget()
    pairs = [(one, other) for one, other in combinations(judged, 2) if one.candidate == other.candidate]
    differences = [difference_of_shares(one.right, other.right) for one, other in pairs]
    adjusted = holm([difference.p_value for difference in differences])
    apart = [
        Apart(one.candidate, one.form, other.form, difference, p)
        for (one, other), difference, p in zip(pairs, differences, adjusted, strict=True)
    ]
    return FormsCompared(task.name, policy.model, split, tuple(judged), tuple(apart))


def _inside(run: Run, name: str, budget: Budget) -> Run:
    """A run in a folder of its own, which ends by its budget alone."""
    return Run(run.folder / folder_name(name), seed=run.seed, budget=budget, on_progress=run.on_progress, stop=run.stop)


async def _judged(told: str, name: str, form: str, candidate: Any, task: Task, split: str, run: Run) -> Judged:
    rows = task.rows(split)
    rollouts: list[Rollout] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        run.progress(f"{told}: {split} rows", start, len(rows))
        rollouts += [group[0] for group in await play(candidate, rows[start : start + ROWS_AT_ONCE], task)]
    assert isinstance(task.environment, Environment)
    async with task.environment.toolbox.opened() as box:
        uses = tuple(use_of(rollout, box.tools, form) for rollout in rollouts)
    right = tuple(bool(rollout.score and rollout.score.passed) for rollout in rollouts)
    write_text(run.folder / "rollouts" / f"{folder_name(name)}-{form}.jsonl", "".join(map(_line, rollouts)))
    return Judged(name, form, right, sum(bool(rollout.error) for rollout in rollouts), uses)


def _line(rollout: Rollout) -> str:
    """A rollout to be read: all that was said, and what it was worth."""
    said = [{"role": message.role, "content": message.content} for message in rollout.messages]
    value = rollout.score.value if rollout.score else None
    told = {"row": rollout.row.id, "messages": said, "answer": rollout.answer, "target": rollout.row.target}
    return json.dumps(told | {"value": value, "error": rollout.error}, ensure_ascii=False) + "\n"
