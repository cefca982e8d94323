"""A run on disk: its folder, seed, budget, log and progress.  Techniques never see a path or a terminal.

    runs/<id>/  config.json  metrics.jsonl  log.txt  report.json  report.html  <candidate>/...

Every file is written whole and then renamed, or appended a line at a time, so a killed run leaves only files
that can be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from posttrain.types import UserError

SCHEMA = 1
"""Version of the records in a run folder; every record carries it."""


@dataclass(frozen=True)
class Progress:
    """How far the work at hand is: shown as a bar on a terminal, as an event by the server.  `told` is a sentence to be
    kept, and then there is nothing else.  `checkpoint` is the newest there is, until the next is written."""

    description: str
    done: float
    total: float
    detail: str = ""
    told: str = ""
    checkpoint: Path | None = None


def silent(_: Progress) -> None:
    """A progress listener that shows nothing."""


@dataclass(frozen=True)
class Budget:
    """Stops a run at a usable checkpoint.  None: no limit.  Minutes of wall time, or optimiser steps."""

    minutes: float | None = None
    steps: int | None = None


class Stop:
    """A wish to end at the next step with what there is by then.  Only while it is `heeded` may it be `asked` for."""

    def __init__(self) -> None:
        self.asked = self.heeded = False

    @contextmanager
    def heed(self) -> Iterator[None]:
        self.heeded = True
        try:
            yield
        finally:
            self.heeded = False


class Run:
    """One piece of work on disk.  `child(name)` is a piece of it with a folder of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        budget: Budget = Budget(),
        on_progress: Callable[[Progress], None] = silent,
        stop: Stop | None = None,
    ) -> None:
        self.folder, self.seed, self.budget, self.on_progress = folder, seed, budget, on_progress
        self.stop = stop or Stop()
        self.started = time.monotonic()
        self.checkpoint: Path | None = None
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def child(self, name: str, *, budget: Budget | None = None, seed: int | None = None) -> Run:
        """A run inside this one.  It gets what is left of this one's time unless it is given less."""
        left = self.seconds_left
        minutes = None if left is None else left / 60
        given = budget or Budget()
        if given.minutes is not None:
            minutes = given.minutes if minutes is None else min(minutes, given.minutes)
        steps = given.steps if given.steps is not None else self.budget.steps
        return Run(
            self.folder / name,
            seed=self.seed if seed is None else seed,
            budget=Budget(minutes=minutes, steps=steps),
            on_progress=self.on_progress,
            stop=self.stop,
        )

    @property
    def seconds(self) -> float:
        """Wall time since this run began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Wall time left in the budget, never negative; None when there is no limit."""
        return None if self.budget.minutes is None else max(0.0, self.budget.minutes * 60 - self.seconds)

    def out_of_budget(self, step: int = 0) -> bool:
        """Whether the budget is used up after `step` optimiser steps, or somebody asked to stop."""
        spent = self.seconds_left is not None and self.seconds_left <= 0
        return self.stop.asked or spent or (self.budget.steps is not None and step >= self.budget.steps)

    def progress(self, description: str, done: float, total: float, detail: str = "") -> None:
        self.on_progress(Progress(description, done, total, detail, checkpoint=self.checkpoint))

    def tell(self, sentence: str) -> None:
        """Says something that whoever waits wants to know."""
        self.on_progress(Progress("", 0, 0, told=sentence))

    def begin_again(self) -> None:
        """Forgets what was logged by an attempt that was stopped: what starts over must not be logged twice."""
        (self.folder / "metrics.jsonl").unlink(missing_ok=True)

    def log(self, **metrics: Any) -> None:
        """Appends one record to metrics.jsonl."""
        append_line(self.folder / "metrics.jsonl", {"schema": SCHEMA, "seconds": round(self.seconds, 3), **metrics})

    def log_bytes(self) -> int:
        """How long metrics.jsonl is."""
        path = self.folder / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def cut_log(self, length: int) -> None:
        """Cuts metrics.jsonl to so many bytes: what was logged after them will be logged again."""
        if self.log_bytes() > length:
            with disk_errors(self.folder), (self.folder / "metrics.jsonl").open("r+b") as file:
                file.truncate(length)

    def metrics(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return read_lines(self.folder / "metrics.jsonl")


class DiskError(UserError):
    """Nothing more can be written: whatever else is tried would end like this."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that may not be written into a UserError that names the place."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write: {error.strerror or error}",
            place=str(path),
            remedy="free some space, or choose another folder (--runs, --output); what was written before is kept",
        ) from error


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON.  NaN and infinity, such as the loss of a run that diverged, become null: JSON has neither."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError:
        nulled = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
        return json.dumps(nulled, indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole: to a temporary name, flushed to disk, then renamed.  Raises UserError."""
    write_text(path, to_json(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole: to a temporary name, flushed to disk, then renamed.  Raises UserError."""
    temporary = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def read_json(path: Path) -> Any:
    """The value in a JSON file.  Raises UserError when it is missing, may not be read, or is broken."""
    try:
        return json.loads(_read(path))
    except FileNotFoundError as error:
        raise UserError("no such file", place=str(path), remedy="check the path") from error
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", place=str(path), remedy="mend or remove the file") from error


def _read(path: Path) -> bytes:
    """The content of a file.  Raises UserError when it may not be read, FileNotFoundError when it is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot read: {error.strerror or error}", place=str(path), remedy="see who may read it"
        ) from error


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one JSON line, after cutting off a line that a kill left unfinished.  Raises UserError."""
    line = to_json(record).encode() + b"\n"
    with disk_errors(path), path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file we wrote; a last line cut short by a kill is left out.

    A kill can break nothing else, so any other broken line is damage: raises UserError with the number of the line.
    """
    try:
        *lines, _ = _read(path).split(b"\n")  # not splitlines: model answers hold odd separators
    except FileNotFoundError:
        return []
    return [_record(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, place: str) -> dict[str, Any]:
    remedy = "remove this line (what it held is lost, the others are kept), or the file"
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", place=place, remedy=remedy) from error
    if not isinstance(record, dict):
        raise UserError("not a JSON object", place=place, remedy=remedy)
    return record


def commit() -> str:
    """The git commit of this code, with "-dirty" where it was changed since; "" when it is no checkout."""
    here = Path(__file__)
    described = ""
    # an installed copy may lie inside somebody else's checkout: ask whether git knows this very file
    for question in (("ls-files", "--error-unmatch", here.name), ("describe", "--always", "--dirty", "--exclude=*")):
        try:
            done = subprocess.run(["git", *question], cwd=here.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        described = done.stdout.strip()
    return described


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
