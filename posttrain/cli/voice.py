"""What a command says while it works: on the terminal, and as plain text in log.txt of the run, once there is one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from posttrain.cli import show
from posttrain.runs import Progress, disk_errors
from posttrain.types import UserError

LOG = "log.txt"


class Voice:
    """Says things.  A `quiet` one only writes them down, for stdout belongs to the JSON document."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.folder: Path | None = None
        self._unwritten = ""

    def begin(self, folder: Path) -> None:
        """From now on there is a run to keep what was and is said."""
        self.folder = folder
        self._write("")

    def hearing(self, shown: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """A listener that says what is told, and shows all else."""

        def listen(progress: Progress) -> None:
            if progress.told:
                self.say(progress.told, markup=False, style="dim", soft_wrap=True)
            else:
                shown(progress)

        return listen

    def say(self, *objects: Any, **style: Any) -> None:
        """As rich's Console.print."""
        if not self.quiet:
            show.console.print(*objects, **style)
        plain = Console(file=io.StringIO(), width=show.width(), color_system=None, highlight=False)
        plain.print(*objects, **style)
        assert isinstance(plain.file, io.StringIO)
        self._write(plain.file.getvalue())

    @contextmanager
    def until_the_end(self, when_stopped: str) -> Iterator[None]:
        """Writes down how the block ended before its time; {run} in `when_stopped` becomes the run's folder."""
        try:
            yield
        except UserError as error:
            if self.folder is not None and self.folder.exists():
                self._write(f"error: {error}\n")
            raise
        except KeyboardInterrupt:
            if self.folder is None:
                show.errors.print("\n[yellow]Stopped[/] before anything was done.")
            else:
                told = when_stopped.format(run=self.folder)
                show.errors.print(f"\n[yellow]Stopped.[/] {told}", soft_wrap=True)
                self._write(f"Stopped. {told}\n")
            raise

    def _write(self, text: str) -> None:
        self._unwritten += text
        if self.folder is not None:
            with disk_errors(self.folder / LOG), (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(self._unwritten)
            self._unwritten = ""
