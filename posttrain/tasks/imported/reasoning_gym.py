"""reasoning_gym:NAME: a generator of reasoning-gym (github.com/open-thought/reasoning-gym), with its own scorer."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib import metadata
from itertools import chain
from typing import Any

from posttrain.tasks.hashing import content_hash
from posttrain.types import Message, Output, RolloutError, Row, Score, Task, UserError

SEED = 20250101
SIZES = {"train": 200, "dev": 40, "test": 100}

INSTRUCTIONS = "Answer with the final answer and nothing else."


class Grader:
    """The generator's own `score_answer`."""

    def __init__(self, dataset: Any, items: Mapping[str, Mapping[str, Any]]) -> None:
        self.dataset, self.items = dataset, items
        self.source = inspect.getsource(type(dataset))

    async def grade(self, row: Row, answer: str) -> Score:
        try:
            value = float(self.dataset.score_answer(answer, self.items[row.id]))
        except (Exception, SystemExit) as error:  # somebody else's code
            raise RolloutError("grader", f"{type(error).__name__}: {error}") from error
        return Score(value, value >= 1)


def variants() -> list[str]:
    """The names of all that can be made without being told more."""
    return sorted(name for name in _library().factory.DATASETS if name != "composite")


def task(variant: str = "", sizes: dict[str, int] = SIZES) -> Task:
    """The task, with so many rows in each split.  Raises UserError for a name there is not."""
    known = variants()
    if variant not in known:
        nearest = difflib.get_close_matches(variant, known, n=1)
        raise UserError(
            f"no generator {variant!r} of reasoning-gym" if variant else "which generator of reasoning-gym?",
            place="reasoning_gym",
            remedy=f"did you mean reasoning_gym:{(nearest or ['gcd'])[0]}? there are {len(known)}: "
            "https://github.com/open-thought/reasoning-gym/blob/main/GALLERY.md",
        )
    library = _library()
    dataset = library.create_dataset(variant, size=sum(sizes.values()), seed=SEED)
    names = {split: [f"{split}-{i + 1}" for i in range(size)] for split, size in sizes.items()}
    items = dict(zip(chain(*names.values()), dataset, strict=True))
    splits = {split: tuple(_row(name, items[name]) for name in of_split) for split, of_split in names.items()}
    output = Output(max_tokens=256)
    grader = Grader(dataset, items)
    judged = {"name": f"reasoning_gym:{variant}", "options": {"seed": SEED}, "source": grader.source}
    return Task(
        name=f"reasoning_gym:{variant}",
        version=metadata.version("reasoning-gym"),
        hash=content_hash(splits, judged, INSTRUCTIONS, output),
        instructions=INSTRUCTIONS,
        splits=splits,
        grader=grader,
        output=output,
        scored_by="grade",
    )


def _row(name: str, item: Mapping[str, Any]) -> Row:
    answer = item["answer"]
    return Row(name, (Message("user", item["question"]),), target=None if answer is None else str(answer))


def _library() -> Any:
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise UserError(
            "reasoning-gym is not installed", place="reasoning_gym", remedy="pip install 'posttrain[reasoning-gym]'"
        ) from error
