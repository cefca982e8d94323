"""prompt_search: instruction templates x demonstrations x formats, by successive halving (arXiv:1502.07943) on dev.

Needs no strong model to write prompts: small models gain most from the right examples and a plain format.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.evaluate import quick_score
from posttrain.runs import Run
from posttrain.techniques import few_shot
from posttrain.techniques._work import Work
from posttrain.types import Kind, Output, Task

KIND: Kind = "prompt"
LABEL = "best prompt found"


TEMPLATES = (
    "{instructions}",
    "You are an expert. Read the message and answer exactly as in the examples.\n\n{instructions}",
    "{form}",
)
"""What stands in the system message.  {form}: only a description of the answer's form."""


@dataclass(frozen=True)
class Config:
    """The first round judges every prompt on `first_rows` dev rows; each round keeps half and doubles the rows."""

    first_rows: int = 10
    shots: tuple[int, ...] = (0, 6)
    nearest: tuple[int, ...] = (4,)


def work(task: Task, config: Config = Config()) -> Work:
    """What `teach` will do."""
    alive, count, answered = len(TEMPLATES) * (len(config.shots) + len(config.nearest)), config.first_rows, 0
    while alive > 1:
        answered += alive * min(count, len(task.rows("dev")))
        alive, count = max(1, alive // 2), count * 2
    return Work(rows_answered=answered)


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """The prompt that survives the halving."""
    alive = list(prompts(candidate, task, run.seed, config))
    count, dev = config.first_rows, task.rows("dev")
    while len(alive) > 1:
        rows = dev[:count]
        scored = []
        for i, trial in enumerate(alive):
            run.progress(f"prompt_search: {len(alive)} prompts on {len(rows)} rows", i, len(alive))
            score = await quick_score(trial, task, rows)
            run.log(
                prompts=len(alive),
                rows=len(rows),
                trial=trial.details["prompt"],
                dev_score=score[0],
                dev_value=score[1],
            )
            scored.append((score, -i, trial))
            if run.out_of_budget():
                break
        scored.sort(key=lambda item: item[:2], reverse=True)
        alive = [trial for _, _, trial in scored[: max(1, len(scored) // 2)]]
        if run.out_of_budget():
            break
        count *= 2
    return alive[0]


def prompts(candidate: PolicyCandidate, task: Task, seed: int, config: Config) -> list[PolicyCandidate]:
    """Every combination of template and demonstrations, the plainest first."""
    demonstrated = []
    for shots in config.shots:
        drawn = (
            few_shot.draws(candidate, task, seed, few_shot.Config(counts=(shots,), draws=1)) if shots else [candidate]
        )
        demonstrated += [(f"{shots} examples", trial) for trial in drawn]
    pool = tuple(few_shot.demonstration(row) for row in task.rows("train") if row.target is not None)
    demonstrated += [
        (f"{nearest} nearest examples", replace(candidate, demonstrations=pool, nearest=nearest))
        for nearest in config.nearest
        if nearest <= len(pool)
    ]
    combinations = itertools.product(enumerate(TEMPLATES), demonstrated)
    return [
        replace(
            trial, instructions=fill(template, task), details={**trial.details, "prompt": f"template {number}, {name}"}
        )
        for (number, template), (name, trial) in combinations
    ]


def fill(template: str, task: Task) -> str:
    """A template with the task's own words in it."""
    return template.format(instructions=task.instructions, form=form(task.output))


def form(output: Output) -> str:
    """The answer's form in words."""
    if output.labels:
        return f"Answer with one of: {', '.join(output.labels)}."
    if output.schema is not None:
        return f"Answer with a JSON object with the fields {', '.join(output.schema.get('properties', {}))}."
    return "Answer briefly."
