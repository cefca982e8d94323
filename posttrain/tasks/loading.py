"""A task from its folder, or a built-in one by its name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema

from posttrain import environments, graders
from posttrain.discovery import names
from posttrain.graders.json import read_object, validator
from posttrain.tasks.documents import read_documents
from posttrain.tasks.hashing import content_hash
from posttrain.tasks.readers import HUB, formats, read_records
from posttrain.tasks.records import Record, Unreadable
from posttrain.tasks.rows import make_rows
from posttrain.tasks.settings import SPLITS, Settings, Source, read_settings
from posttrain.types import Document, Grader, Message, Output, Row, Task, UserError, target_text


@dataclass(frozen=True)
class Reading:
    """A task as far as it could be read: without the rows that `problems` tell of.  `places` is by row id."""

    task: Task
    places: Mapping[str, str]
    problems: tuple[UserError, ...]

    @property
    def place(self) -> str:
        return str(self.task.folder or self.task.name)


def load(source: str | Path) -> Task:
    """The task in a folder, or the built-in one of that name (`arithmetic`, `arithmetic:two_digit`).

    Raises UserError at the first thing wrong, saying how many more there are.
    """
    reading = read(source)
    if reading.problems:
        first, more = reading.problems[0], len(reading.problems) - 1
        if more:
            first = UserError(
                f"{first.message} (and {more} more: posttrain check lists them)",
                place=first.place,
                remedy=first.remedy,
            )
        raise first
    return reading.task


def read(source: str | Path) -> Reading:
    """As `load`, but collects what is wrong with single rows instead of raising it."""
    folder = Path(source)
    if (folder / "task.toml").is_file():
        return _read_folder(folder)
    name, _, variant = str(source).partition(":")
    for package in ("builtin", "imported"):
        if name in names(f"tasks.{package}"):
            return Reading(importlib.import_module(f"posttrain.tasks.{package}.{name}").task(variant), {}, ())
    raise _unknown(source)


def _unknown(source: str | Path) -> UserError:
    path = Path(source)
    if path.is_file():
        return UserError("a file, not a task", place=str(path), remedy="make a task of it: posttrain init FILE")
    if path.is_dir():
        return UserError("the folder has no task.toml", place=str(path), remedy="make a task: posttrain init FILE")
    parent = path.parent
    beside = (
        [str(parent / other.name) for other in parent.iterdir() if (other / "task.toml").is_file()]
        if parent.is_dir()
        else []
    )
    known = [*names("tasks.builtin"), *sorted(beside), *(f"{name}:NAME" for name in names("tasks.imported"))]
    nearest = difflib.get_close_matches(str(source), known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return UserError(f"no task {str(source)!r}", remedy=f"{hint}known: {', '.join(known)}, or a folder with task.toml")


def _read_folder(folder: Path) -> Reading:
    settings = read_settings(folder / "task.toml")
    grader = graders.load(settings.grader, settings.options, folder, settings.output)
    splits, places, problems = _read_splits(folder, settings, grader)
    documents: tuple[Document, ...] = ()
    if settings.documents:
        try:
            documents = read_documents(folder / settings.documents)
        except UserError as error:
            problems.append(error)
    judged = {"name": settings.grader, "options": settings.options, "source": getattr(grader, "source", "")}
    gold = graders.load(settings.gold, settings.gold_options, folder, settings.output) if settings.gold else None
    environment = environments.load(settings.environment, settings.environment_options, folder, documents)
    if getattr(environment, "free_text", False) and (settings.output.labels or settings.output.schema):
        place, remedy = (
            str(folder / "task.toml"),
            "leave labels and schema out of [output]: the grader may want them still",
        )
        raise UserError("answers of a closed form leave no room for calls of tools", place=place, remedy=remedy)
    world = [settings.environment_options, getattr(environment, "source", "")]
    if any(world):
        judged["environment"] = world
    if gold:
        judged["gold"] = [settings.gold, settings.gold_options, getattr(gold, "source", "")]
    task = Task(
        name=settings.name,
        version=settings.version,
        instructions=settings.instructions,
        splits=splits,
        grader=grader,
        gold=gold,
        output=settings.output,
        scored_by=settings.scored_by,
        environment=environment,
        documents=documents,
        ceiling=settings.ceiling,
        folder=folder,
        hash=content_hash(
            splits,
            judged,
            settings.instructions,
            settings.output,
            documents,
            scored_by=settings.scored_by,
            environment=settings.environment,
        ),
    )
    return Reading(task, places, tuple(problems))


def _read_splits(
    folder: Path, settings: Settings, grader: Grader
) -> tuple[dict[str, tuple[Row, ...]], dict[str, str], list[UserError]]:
    splits: dict[str, tuple[Row, ...]] = {}
    places: dict[str, str] = {}
    problems: list[UserError] = []
    prepared = getattr(grader, "prepared", lambda row: row)  # where a grader takes targets in its own way
    for split in SPLITS:
        source = settings.splits.get(split) or _found(folder, split)
        if source is None:
            continue
        file = source.file if source.file.startswith(HUB) else folder / source.file
        records = _records(file, problems)
        rows, wrong = make_rows(records, split, columns=source.columns, strict=True, need_target=True)
        if not rows and getattr(grader, "judges_without_target", False):
            rows, wrong = make_rows(records, split, columns=source.columns, strict=True)
        problems += wrong
        kept = []
        for place, row in rows.items():
            try:
                if row.id in places:
                    raise UserError(
                        f"the id {row.id!r} is taken (see {places[row.id]})",
                        place=place,
                        remedy="give every row of the task an id of its own",
                    )
                places[row.id] = place
                kept.append(_fitted(prepared(row), settings, place))
            except UserError as error:
                problems.append(error)
        splits[split] = tuple(kept)
    if not splits:
        raise UserError("no rows", place=str(folder), remedy="add train.jsonl, dev.jsonl and test.jsonl")
    return splits, places, problems


def _records(file: str | Path, problems: list[UserError]) -> Sequence[Record]:
    """The records of a file that can be read; what is wrong with it or with the others is added to `problems`."""
    try:
        return read_records(file)
    except Unreadable as error:
        problems += error.problems
        return error.records
    except UserError as error:
        problems.append(error)
        return ()


def _found(folder: Path, split: str) -> Source | None:
    """The file named like the split, in any format; two of them leave open which is meant."""
    files = [f"{split}.{ending}" for ending in formats() if (folder / f"{split}.{ending}").is_file()]
    if len(files) > 1:
        raise UserError(
            f"{' and '.join(files)}: which is it?",
            place=str(folder),
            remedy=f"remove one, or name it under [splits] in task.toml as {split}",
        )
    return Source(files[0]) if files else None


def _fitted(row: Row, settings: Settings, place: str) -> Row:
    """The row without the instructions it repeats, with the task's tools, its target in the output's form."""
    if (
        settings.instructions
        and row.messages[0] == Message("system", row.messages[0].content)
        and row.messages[0].content.strip() == settings.instructions
        and len(row.messages) > 1
    ):
        row = replace(row, messages=row.messages[1:])
    if settings.tools and not row.tools:
        row = replace(row, tools=settings.tools)
    if row.target is not None:
        row = replace(row, target=_fitted_target(row.target, settings.output, place))
    return row


def _fitted_target(target: Any, output: Output, place: str) -> Any:
    if output.labels and target_text(target) not in output.labels:
        nearest = difflib.get_close_matches(target_text(target), output.labels, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(
            f"the label {target_text(target)!r} is not among [output] labels",
            place=place,
            remedy=f"{hint}correct the row, or add the label in task.toml",
        )
    if output.schema is None:
        return target
    record = read_object(target) if isinstance(target, str) else target
    if record is None:
        raise UserError(f"the target {target!r} is not a record", place=place, remedy="write an object with its fields")
    try:
        error = jsonschema.exceptions.best_match(validator(output.schema).iter_errors(record))
    except RecursionError as endless:
        remedy = "correct the row, or a $ref of the schema that leads back to itself"
        raise UserError("too deep to hold against the schema", place=place, remedy=remedy) from endless
    if error is not None:
        field = ".".join(map(str, error.absolute_path))
        raise UserError(
            f"the target does not follow the schema: {error.message}",
            place=f"{place}, field {field}" if field else place,
            remedy="correct the row or the schema",
        )
    order = list(output.schema.get("properties", {}))  # constrained sampling writes fields in the schema's order
    rank = {name: order.index(name) if name in order else len(order) for name in record}
    return dict(sorted(record.items(), key=lambda item: rank[item[0]]))
