"""A folder with a stranger's files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tickets


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with tickets.csv (90 labelled messages) and new.csv (two without labels)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tickets.lay_out(tmp_path)
    return tmp_path
