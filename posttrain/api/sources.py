"""What a task on the command line means: a folder, a built-in name, or a file of examples, made into tasks/<name>.

    tasks/tickets/source.json    the file it was made from, the options, and the SHA-256 of both sides

So a changed file or another option is noticed: what was made is made again, unless somebody has worked on it since.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain import tasks
from posttrain.comparison.conclude import folder_name
from posttrain.runs import SCHEMA, read_json, write_json
from posttrain.tasks.worlds import add_world
from posttrain.types import Task, UserError

TASKS = Path("tasks")
RECORD = "source.json"
HUB = "hub:"


@dataclass(frozen=True)
class Options:
    """How a file is read; what is empty is guessed."""

    input: str = ""
    target: tuple[str, ...] = ()
    test: str = ""
    grader: str = ""

    @property
    def given(self) -> dict[str, str]:
        """Those that are not empty, as they are written on the command line."""
        texts = {"--input": self.input, "--target": ",".join(self.target), "--test": self.test, "--grader": self.grader}
        return {option: text for option, text in texts.items() if text}


def init(
    file: str | Path,
    *,
    output: str | Path | None = None,
    test: str | Path | None = None,
    input: str = "",
    target: str | Sequence[str] = (),
    grader: str = "",
    environment: bool = False,
    seed: int = 0,
) -> Task:
    """Makes a task folder of a file of examples (CSV, JSONL ... or hub:NAME); default tasks/<name of the file>.

    `input` and `target` name columns, `test` a file with the rows to test on; with `environment` the task has several
    turns, in a world to be changed.  `Task.notes` says what was guessed.  Raises UserError.
    """
    options = Options(input, _columns(target), str(test or ""), grader)
    folder = Path(output) if output else folder_of(file)
    task = _made(file, folder, options, seed)
    if not environment:
        return task
    note = add_world(folder)
    return replace(tasks.load(folder), notes=(*task.notes, note))


def load_task(
    source: str | Path,
    *,
    input: str = "",
    target: str | Sequence[str] = (),
    test: str | Path | None = None,
    grader: str = "",
) -> Task:
    """The task in a folder, the built-in one of that name, or the one made of a file (now, or before and still so).

    A file's rows are split with seed 0 whatever the seed of the run, so that all runs are judged on the same rows.
    Raises UserError, also for options that would be ignored.
    """
    options = Options(input, _columns(target), str(test or ""), grader)
    path = Path(source)
    if path.name == "task.toml" or not (path.is_file() or str(source).startswith(HUB)):
        if options.given:
            raise UserError(
                f"{source} is a task already: these options are for a file of examples",
                place=" ".join(options.given),
                remedy="change the task's own task.toml, or give the file that it was made from",
            )
        return tasks.load(path.parent if path.name == "task.toml" else source)
    folder = folder_of(source)
    if not (folder / "task.toml").exists():
        return _made(source, folder, options, seed=0)
    return _made_before(source, folder, options)


def _columns(target: str | Sequence[str]) -> tuple[str, ...]:
    """The names of columns: `a,b` as on the command line, or one by one."""
    return tuple(name.strip() for name in (target.split(",") if isinstance(target, str) else target) if name.strip())


def folder_of(source: str | Path) -> Path:
    """Where the task of a file goes unless told otherwise."""
    name = Path(str(source).removeprefix(HUB))
    return TASKS / folder_name(name.name if str(source).startswith(HUB) else name.stem)


def _made(source: str | Path, folder: Path, options: Options, seed: int) -> Task:
    task = tasks.create(
        source,
        folder=folder,
        test=options.test or None,
        input=options.input,
        target=options.target,
        grader=options.grader,
        seed=seed,
    )
    record = {
        "schema": SCHEMA,
        **_named("file", str(source)),
        **_named("test", options.test),
        "options": options.given,
        "seed": seed,
        "notes": task.notes,
        "made": _contents(folder),
    }
    write_json(folder / RECORD, record)
    return task


def _made_before(source: str | Path, folder: Path, options: Options) -> Task:
    """The task in `folder` if it is what this file and these options make; else it is made again, or refused."""
    record = _record(source, folder)
    edited = record["made"] != _contents(folder)
    differences = _differences(source, options, record)
    if not differences:
        said = f"task: {folder}, made from {source} before"
        if edited:
            return replace(tasks.load(folder), notes=(f"{said} and edited since",))
        return replace(tasks.load(folder), notes=(f"{said}; nothing has changed", *record["notes"]))
    why = " and ".join(differences)
    if edited:
        raise UserError(
            f"{why}, but {folder} was edited since it was made, so it is not made again",
            place=str(folder),
            remedy=f"compare the folder as it is (posttrain compare {folder}), make another one "
            f"(posttrain init {source} --output tasks/NAME), or remove it",
        )
    seed = record["seed"]
    asked = Options(
        options.input or record["options"].get("--input", ""),
        options.target or tuple(filter(None, record["options"].get("--target", "").split(","))),
        options.test or record["options"].get("--test", ""),
        options.grader or record["options"].get("--grader", ""),
    )
    with _set_aside(folder):
        task = _made(source, folder, asked, seed)
    return replace(task, notes=(f"task: {folder}, made again: {why}", *task.notes))


def _record(source: str | Path, folder: Path) -> Mapping[str, Any]:
    """What is known of how a folder was made.  Raises UserError when it is not of this file."""
    path = folder / RECORD
    record = read_json(path) if path.exists() else None
    if record and (_same_file(source, record["file"]) or digest(str(source)) == record["file_sha256"] != ""):
        return record
    made = f"was made from {record['file']}" if record else "was not made from a file"
    raise UserError(
        f"there is a task of this name, and it {made}",
        place=str(folder),
        remedy=f"give the file a folder of its own: posttrain init {source} --output tasks/NAME; "
        f"or take the task that is there: posttrain compare {folder}",
    )


def _differences(source: str | Path, options: Options, record: Mapping[str, Any]) -> list[str]:
    """What has changed since the task was made, in words.  An option that is not given stays as it was."""
    found = []
    if digest(str(source)) != record["file_sha256"]:
        found.append(f"{source} has changed")
    before = record["options"]
    test = options.test or before.get("--test", "")
    if test and test == before.get("--test") and digest(test) != record["test_sha256"]:
        found.append(f"{test} has changed")
    for option, text in options.given.items():
        same = option == "--test" and digest(text) == record["test_sha256"]
        if before.get(option) != text and not same:
            found.append(f"{option} is {text} and was {before.get(option, 'not given')}")
    return found


def _named(role: str, source: str) -> dict[str, str]:
    return {role: source, f"{role}_sha256": digest(source)}


def digest(source: str) -> str:
    """SHA-256 of a file; "" for what is no file, such as a data set on the hub."""
    path = Path(source)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", place=source, remedy="see who may read it") from error


def _same_file(one: str | Path, other: str) -> bool:
    if str(one).startswith(HUB) or other.startswith(HUB):
        return str(one) == other
    return os.path.realpath(one) == os.path.realpath(other)


def _contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a task, by its path in the folder; what other programs leave there does not count."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    paths = ((path, path.relative_to(folder)) for path in files)
    return {
        inside.as_posix(): digest(str(path))
        for path, inside in paths
        if not any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
    }


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """Room for what is made in the block; what was there comes back when the block fails."""
    aside = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        raise
    shutil.rmtree(aside)
