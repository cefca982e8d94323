"""prompt_search: instruction templates x demonstrations x formats, by successive halving (arXiv:1502.07943) on dev.

Needs no strong model to write prompts: small models gain most from the right examples and a plain format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from posttrain.candidates.policy import Demonstration, PolicyCandidate
from posttrain.evaluation.drawing import drawn
from posttrain.evaluation.evaluate import quick_score
from posttrain.runs import Run
from posttrain.techniques import few_shot, knn_few_shot
from posttrain.techniques._work import Work
from posttrain.types import Kind, Output, Task

KIND: Kind = "prompt"
LABEL = "best prompt found"

Format = Literal["none", "turns", "listed", "nearest"]
"""How demonstrations are shown: not at all; as earlier turns of the conversation; written out in the instructions,
field by field; or the nearest ones to each row, as turns."""

TEMPLATES = {
    "instructions": "{instructions}",
    "instructions and form": "{instructions}\n\n{form}",
    "form": "{form}",
}
"""What the system message says, by name.  {form}: a description of the answer's form."""

LISTED = "\n\nExamples:\n\n{examples}\n\nAnswer the next message in the same way, with nothing but the answer."
"""What the format "listed" adds to the instructions."""


@dataclass(frozen=True)
class Config:
    """The first round judges every prompt on `first_rows` dev rows; each round keeps half and doubles the rows."""

    first_rows: int = 10
    shots: tuple[int, ...] = (0, 6)
    nearest: tuple[int, ...] = (4,)


def work(task: Task, config: Config = Config()) -> Work:
    """What `teach` will do."""
    alive, count, answered = len(combinations(config)), config.first_rows, 0
    while alive > 1:
        answered += alive * min(count, len(task.rows("dev")))
        alive, count = max(1, alive // 2), count * 2
    return Work(rows_answered=answered)


def shape(candidate: PolicyCandidate, task: Task, config: Config = Config()) -> PolicyCandidate:
    """The costliest that may be found: with examples of its own for each row."""
    if not config.nearest:
        return candidate
    return knn_few_shot.shape(candidate, task, knn_few_shot.Config(nearest=max(config.nearest)))


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """The prompt that survives the halving."""
    alive = prompts(candidate, task, run.seed, config)
    count, dev = config.first_rows, task.rows("dev")
    while len(alive) > 1:
        rows = drawn(dev, count)
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


def combinations(config: Config) -> list[tuple[str, Format, int]]:
    """(name of the template, format, number of demonstrations) of every prompt that is tried, the plainest first.

    A form alone says nothing of the task: it goes with demonstrations only.
    """
    shown: list[tuple[Format, int]] = []
    for shots in config.shots:
        shown += [("turns", shots), ("listed", shots)] if shots else [("none", 0)]
    shown += [("nearest", nearest) for nearest in config.nearest]
    return [(template, *how) for template in TEMPLATES for how in shown if template != "form" or how[1]]


def prompts(candidate: PolicyCandidate, task: Task, seed: int, config: Config) -> list[PolicyCandidate]:
    """A candidate for every combination that the training rows allow.  Raises UserError when none has a target."""
    drawn = {
        shots: next(few_shot.draws(candidate, task, seed, few_shot.Config(counts=(shots,), draws=1))).demonstrations
        for shots in config.shots
    }
    pool = tuple(few_shot.demonstration(row) for row in task.rows("train") if row.target is not None)
    found = []
    for template, how, count in combinations(config):
        if how == "nearest" and count > len(pool):
            continue
        trial = replace(candidate, instructions=fill(TEMPLATES[template], task), demonstrations=(), nearest=0)
        if how == "nearest":
            trial = replace(trial, demonstrations=pool, nearest=count)
        elif how == "turns":
            trial = replace(trial, demonstrations=drawn[count])
        elif how == "listed":
            trial = replace(trial, instructions=listed(trial.instructions, drawn[count]))
        found.append(replace(trial, details={**trial.details, "prompt": describe(template, how, count)}))
    return found


def describe(template: str, how: Format, count: int) -> str:
    """A prompt in a few words, for the report."""
    shown = {
        "none": "no examples",
        "turns": f"{count} examples as turns",
        "listed": f"{count} examples listed in the instructions",
        "nearest": f"the {count} nearest examples as turns",
    }
    return f"{template}; {shown[how]}"


def fill(template: str, task: Task) -> str:
    """A template with the task's own words in it."""
    return template.format(instructions=task.instructions, form=form(task.output))


def listed(instructions: str, demonstrations: Sequence[Demonstration]) -> str:
    """Instructions with demonstrations written out in them."""
    examples = "\n\n".join(f"Message: {shown.asked}\nAnswer: {shown.answer}" for shown in demonstrations)
    return instructions + LISTED.format(examples=examples)


def form(output: Output) -> str:
    """The answer's form in words."""
    if output.labels:
        return f"Answer with one of: {', '.join(output.labels)}."
    if output.schema is not None:
        fields = output.schema.get("properties", {})
        return f"Answer with a JSON object with the fields {', '.join(map(field, fields.items()))}."
    return "Answer briefly."


def field(named: tuple[str, object]) -> str:
    """A field of a record and, where it is a closed set, the values it may have."""
    name, schema = named
    values = schema.get("enum") if isinstance(schema, dict) else None
    return f"{name} ({', '.join(map(str, values))})" if values else name
