"""What the terminal shows: progress with time left, errors without tracebacks, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from posttrain.runs import Progress

WIDTH_ELSEWHERE = 120
"""Columns where nobody is looking: a file, a pipe, a log."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_ELSEWHERE)
errors = Console(stderr=True, highlight=False)


class Shown:
    """One line that follows the work at hand: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),  # it holds names of the user's
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=errors,
            transient=True,
        )
        self.work = self.bars.add_task("", total=None, visible=False, detail="")
        self.description, self.written = "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.told:
            return
        if errors.is_terminal:
            if progress.description != self.description:
                self.bars.reset(self.work)
            self.bars.update(
                self.work,
                description=progress.description,
                completed=progress.done,
                total=progress.total,
                detail=progress.detail,
                visible=True,
            )
        elif time.monotonic() - self.written > 15:
            self.written = time.monotonic()
            line = f"  {progress.description}: {progress.done:g} of {progress.total:g}  {progress.detail}"
            errors.print(line, markup=False)
        self.description = progress.description


@contextmanager
def progress(quiet: bool = False) -> Iterator[Shown]:
    """Shows progress on stderr while the block runs."""
    shown = Shown()
    if quiet or not errors.is_terminal:
        yield shown
        return
    with shown.bars:
        yield shown


def width() -> int:
    """Columns there are."""
    return console.width
