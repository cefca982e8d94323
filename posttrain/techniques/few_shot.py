"""few_shot: worked examples in the prompt (arXiv:2005.14165).  How many and which is searched on dev."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from posttrain.candidates.policy import Demonstration, PolicyCandidate
from posttrain.evaluation.drawing import drawn
from posttrain.evaluation.evaluate import quick_score
from posttrain.runs import Run
from posttrain.techniques._work import Work
from posttrain.types import Kind, Row, Task, UserError, target_text

KIND: Kind = "prompt"
LABEL = "examples in the prompt"


@dataclass(frozen=True)
class Config:
    """`counts` demonstrations are tried, `draws` random sets of each, on `dev_rows` rows."""

    counts: tuple[int, ...] = (4, 8)
    draws: int = 2
    dev_rows: int = 20


def work(task: Task, config: Config = Config()) -> Work:
    """What `teach` will do."""
    trials = 1 + len(config.counts) * config.draws
    return Work(rows_answered=trials * min(config.dev_rows, len(task.rows("dev"))))


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """The candidate with the best set of demonstrations found; with none where none helped."""
    rows = drawn(task.rows("dev"), config.dev_rows)
    trials = list(draws(candidate, task, run.seed, config))
    best, best_score = candidate, await quick_score(candidate, task, rows)
    for i, trial in enumerate(trials):
        run.progress("few_shot: sets of demonstrations", i, len(trials))
        if run.out_of_budget():
            break
        score = await quick_score(trial, task, rows)
        run.log(demonstrations=len(trial.demonstrations), dev_score=score[0], dev_value=score[1])
        if score > best_score:
            best, best_score = trial, score
    return replace(best, details={**best.details, "demonstrations": len(best.demonstrations)})


def draws(candidate: PolicyCandidate, task: Task, seed: int, config: Config) -> Iterator[PolicyCandidate]:
    """Candidates with random sets of demonstrations, each set as varied in its targets as the rows allow."""
    rows = [row for row in task.rows("train") if row.target is not None]
    if not rows:
        raise UserError("no training row has a target", place=task.name, remedy="label some rows")
    for count in config.counts:
        for draw in range(config.draws):
            chosen = varied(rows, count, random.Random(f"{seed}:{count}:{draw}"))
            yield replace(candidate, demonstrations=tuple(demonstration(row) for row in chosen))


def varied(rows: Sequence[Row], count: int, source: random.Random) -> list[Row]:
    """A random choice of rows, taking a target again only when every other has been taken as often; where targets are
    all different, the same of slices (sums and differences)."""
    targets, slices = Counter[str](), Counter[tuple[str, ...]]()
    order = source.sample(list(rows), len(rows))
    chosen: list[Row] = []
    while order and len(chosen) < count:
        row = min(order[:200], key=lambda row: (targets[_first_field(row)], slices[row.slices]))
        targets[_first_field(row)] += 1
        slices[row.slices] += 1
        order.remove(row)
        chosen.append(row)
    return chosen


def _first_field(row: Row) -> str:
    target = row.target
    return str(next(iter(target.values()), "")) if isinstance(target, dict) else str(target)


def demonstration(row: Row) -> Demonstration:
    """A row as a worked example."""
    assert row.target is not None
    return Demonstration(row.id, row.text, target_text(row.target))
