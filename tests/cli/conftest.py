"""A folder with a stranger's files, and the command line in it."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
from command_line import Shell, make_shell

ABOUT = {
    "billing": ("I was charged twice for an invoice", "the refund has not been paid", "wrong price on the invoice"),
    "shipping": ("where is my parcel", "the courier lost the parcel", "the box was crushed in delivery"),
    "account": ("I cannot sign in to the portal", "please reset my password", "add a user to the portal"),
}
WHO = ("at the shop in Leeds", "in the clinic", "of our bakery", "for the museum", "on the night shift", "at the farm",
       "in lab two", "for a florist", "of the brewery", "in the school library")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line in a folder with tickets.csv (90 labelled messages) and new.csv (two without labels)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    messages = [
        (f"{text} {who}", queue) for queue, texts in ABOUT.items() for text, who in itertools.product(texts, WHO)
    ]
    write_table(tmp_path / "tickets.csv", ("message", "queue"), messages)
    write_table(tmp_path / "new.csv", ("message",), [("where is the parcel",), ("cannot sign in to the portal",)])
    return make_shell(monkeypatch, capsys)


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
