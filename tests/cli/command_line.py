"""The real command line in this process, which spares each test the seconds of starting it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from posttrain.cli import main


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything beside it fails the test."""
        return json.loads(self.out)


Shell = Callable[..., Said]
"""`shell("init", "tickets.csv")` runs `posttrain init tickets.csv`."""


def make_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["posttrain", *arguments])
        capsys.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
