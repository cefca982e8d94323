"""Sums of two to four numbers by two agents, made from a seed: `team_sums`.

The main agent may ask another one, the adder, which adds two numbers and knows nothing else; so a longer sum takes
several questions, the next with what was said to the one before it.  Only the last answer is judged: who was at fault
when it is wrong, reinforcement learning has to find out.  No sum of test rows is asked for in another split.
"""

from __future__ import annotations

import random

from posttrain import environments, graders
from posttrain.tasks.hashing import content_hash
from posttrain.types import Message, Output, Row, Task, UserError

SEED = 20261130
SIZES = {"train": 400, "dev": 60, "test": 300}
COUNTS = (2, 3, 4)
SMALLEST, LARGEST = 2, 59
THINGS = ("marbles", "stamps", "apples", "coins", "books", "shells", "cards", "nuts")
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon")
INSTRUCTIONS = "Ask the adder for sums, two numbers at a time. Then answer with the total, a number and nothing else."
ADDER = {
    "description": "Adds two numbers.",
    "instructions": "Add the two numbers. Answer with the sum and nothing else.",
    "max_tokens": 6,
}


def task(variant: str = "") -> Task:
    """The task.  Raises UserError for a variant: there is none."""
    if variant:
        raise UserError(f"no team_sums task called {variant!r}", remedy="known: team_sums")
    drawing = random.Random(SEED)
    seen: set[tuple[int, ...]] = set()
    splits = {
        split: tuple(_row(f"{split}-{i + 1}", COUNTS[i % len(COUNTS)], drawing, seen) for i in range(size))
        for split, size in SIZES.items()
    }
    output = Output(max_tokens=24)
    options = {"agents": {"adder": ADDER}, "form": "python", "turns": max(COUNTS) + 1}
    return Task(
        name="team_sums",
        version="1",
        hash=content_hash(splits, {"name": "team_sums", "adder": ADDER}, INSTRUCTIONS, output, environment="tools"),
        instructions=INSTRUCTIONS,
        splits=splits,
        grader=graders.load("exact", {}),
        output=output,
        environment=environments.load("tools", options),
        notes=("made from a seed; who adds is an agent of its own",),
    )


def _row(name: str, count: int, drawing: random.Random, seen: set[tuple[int, ...]]) -> Row:
    """A sum that was not seen, with what is best asked on the way to it."""
    while (numbers := tuple(drawing.randint(SMALLEST, LARGEST) for _ in range(count))) in seen:
        pass
    seen.add(numbers)
    things, people = drawing.choice(THINGS), drawing.sample(NAMES, count)
    have = [f"{person} has {number} {things}" for person, number in zip(people, numbers, strict=True)]
    calls, total = [], numbers[0]
    for number in numbers[1:]:
        asked, total = f"{total} + {number}", total + number
        calls.append({"name": "adder", "arguments": {"question": asked}, "said": str(total)})
    question = f"{', '.join(have[:-1])} and {have[-1]}. How many {things} do they have together?"
    return Row(
        id=name,
        messages=(Message("user", question),),
        target=str(total),
        slices=(f"{count} numbers",),
        metadata={"calls": calls, "needs": ["adder"]},
    )
