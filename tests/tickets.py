"""A stranger's files: labelled tickets, and new ones without labels."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

ABOUT = {
    "billing": ("I was charged twice for an invoice", "the refund has not been paid", "wrong price on the invoice"),
    "shipping": ("where is my parcel", "the courier lost the parcel", "the box was crushed in delivery"),
    "account": ("I cannot sign in to the portal", "please reset my password", "add a user to the portal"),
}
WHO = ("at the shop in Leeds", "in the clinic", "of our bakery", "for the museum", "on the night shift", "at the farm",
       "in lab two", "for a florist", "of the brewery", "in the school library")


def lay_out(folder: Path) -> None:
    """tickets.csv (90 labelled messages) and new.csv (two without labels)."""
    messages = [
        (f"{text} {who}", queue) for queue, texts in ABOUT.items() for text, who in itertools.product(texts, WHO)
    ]
    write_table(folder / "tickets.csv", ("message", "queue"), messages)
    write_table(folder / "new.csv", ("message",), [("where is the parcel",), ("cannot sign in to the portal",)])


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
