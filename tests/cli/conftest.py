"""A folder with a stranger's files, and the command line in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tickets
from command_line import Shell, make_shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line in a folder with tickets.csv (90 labelled messages) and new.csv (two without labels)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tickets.lay_out(tmp_path)
    return make_shell(monkeypatch, capsys)
