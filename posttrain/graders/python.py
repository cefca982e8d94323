"""A function `grade(row, answer)` of the task's own: grade.py or task.py in its folder.

It may be async, and returns a bool, a number in [0, 1], a `Score`, or a mapping: either the fields of a Score
(`value`, and optionally `passed`, `parts`, `explanation`) or named parts, whose mean is then the value.
The file is run as it is: load only tasks you trust.  It may import modules that lie beside it; all Python files of the
folder are part of the task's hash.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.types import RolloutError, Row, Score, UserError

FILES = ("grade.py", "task.py")


class GraderRaised(RolloutError):
    """The task's own function failed; `place` is the file and line where it did."""

    def __init__(self, error: BaseException, row: Row, place: str) -> None:
        self.place, self.reason = place, f"{type(error).__name__}: {error}"
        super().__init__("grader", f"{place}: {self.reason} (row {row.id})")


class Grader:
    """Options: `file` (default: grade.py, else task.py); `function`; `threshold`, the value at which an answer
    passes when the function does not say."""

    judges_without_target = True

    def __init__(
        self, *, file: str = "", function: str = "grade", threshold: float = 1.0, folder: Path | None = None
    ) -> None:
        self.path = path = _file(folder, file)
        self.source = "\n".join([path.read_text(encoding="utf-8"), *_beside(path, folder or path.parent)])
        """The text of the file, and what tells versions of those beside it apart: part of the task's hash."""
        self.threshold = threshold
        found = getattr(_run(path), function, None)
        if not callable(found):
            raise UserError(f"no function {function}(row, answer)", place=str(path), remedy="define it")
        self.function: Callable[[Row, str], Any] = found

    async def grade(self, row: Row, answer: str) -> Score:
        try:
            verdict = self.function(row, answer)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            return self._score(verdict)
        except (Exception, SystemExit) as error:  # somebody else's code: whatever it raises is the grader's failure
            defined = getattr(getattr(self.function, "__code__", None), "co_firstlineno", 0)
            raise GraderRaised(error, row, _place(error, self.path, otherwise=defined)) from error

    def _score(self, verdict: Any) -> Score:
        if isinstance(verdict, Score):
            return _checked(verdict)
        if not isinstance(verdict, Mapping):
            value = float(verdict)
            return _checked(Score(value, value >= self.threshold))
        if "value" in verdict:
            value = float(verdict["value"])
            return _checked(Score(**{"passed": value >= self.threshold, **verdict, "value": value}))
        parts = {name: float(part) for name, part in verdict.items()}
        value = sum(parts.values()) / len(parts)
        return _checked(Score(value, value >= self.threshold, parts))


def _checked(score: Score) -> Score:
    for name, value in {"the value": score.value, **score.parts}.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"{name} is {value}, not a number from 0 to 1")
    return score


def _place(error: BaseException, path: Path, otherwise: int = 0) -> str:
    """`file:line` of the last line of `path` that ran before the error, or of its line `otherwise`."""
    loaded = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == loaded:
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == loaded]
    line = lines[-1] if lines else otherwise
    return f"{path}:{line}" if line else str(path)


def _file(folder: Path | None, file: str) -> Path:
    if folder is None:
        raise ValueError("a python grader needs a task folder")
    for path in [folder / file] if file else [folder / name for name in FILES]:
        if path.is_file():
            return path
    raise UserError(
        f"no {file or ' or '.join(FILES)} for the python grader",
        place=str(folder),
        remedy="write one with a function grade(row, answer)",
    )


def _beside(grader: Path, folder: Path) -> list[str]:
    """Name and SHA-256 of every other Python file of the folder: the grader may import any of them."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if path.is_file() and not path.samefile(grader) and not any(part.startswith(".") for part in inside.parts):
            content = path.read_bytes().replace(b"\r\n", b"\n")  # the same on every machine
            found.append(f"{inside.as_posix()} {hashlib.sha256(content).hexdigest()}")
    return found


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"task_{path.parent.name}_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = importlib.util.module_from_spec(spec)
    try:
        with importing_from(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # somebody else's code
        raise UserError(
            f"cannot be loaded: {type(error).__name__}: {error}", place=_place(error, path), remedy="mend the file"
        ) from error
    return module


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Modules beside a grader can be imported by it, at the top of its file, and are forgotten afterwards: another
    task may have others of the same name."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(folder.resolve()):
                del sys.modules[name]
