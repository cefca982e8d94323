"""The task of the demo is what its card says, and stays so: it was frozen before anything was trained on it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from posttrain.tasks.loading import load
from posttrain.tasks.near_duplicates import groups
from posttrain.types import Row, Task

FOLDER = Path(__file__).parents[2] / "examples" / "support_triage"
FROZEN = "268d2c3d4474121a9a1f8cb9de15fab6cbfc65aa383ad94acfcc1325315a8333"
SLICES = {"clear": 0.55, "ambiguous": 0.15, "two_in_one": 0.15, "hostile": 0.10, "fragment": 0.05}
ONLY_IN_TEST = ("Dunlin 40", "Plover Rewind", "Quillon 88", "Tamsin Pen", "Zephyr Node")
TECHNICAL = ("maple", "orbit", "anchor")


@pytest.fixture(scope="module")
def task() -> Task:
    return load(FOLDER)


def all_rows(task: Task) -> list[Row]:
    return [row for split in ("train", "dev", "test") for row in task.rows(split)]


def test_it_is_the_task_that_was_frozen(task: Task) -> None:
    assert task.hash == FROZEN


def test_its_splits_and_slices_have_the_sizes_that_its_card_gives(task: Task) -> None:
    for split, count in (("train", 200), ("dev", 60), ("test", 120)):
        rows = task.rows(split)
        held = Counter(name for row in rows for name in row.slices if name != "new_product")
        assert len(rows) == count and held == {name: round(share * count) for name, share in SLICES.items()}
    assert [sum("new_product" in row.slices for row in task.rows(split)) for split in ("train", "dev", "test")] == [
        0, 0, 36]


def test_five_products_are_named_in_test_only(task: Task) -> None:
    titles = {document.title for document in task.documents}
    assert len(titles) == 20 and titles >= set(ONLY_IN_TEST)
    for split in ("train", "dev"):
        assert not [row.id for row in task.rows(split) for name in ONLY_IN_TEST if name.lower() in row.text.lower()]
    new = [row for row in task.rows("test") if "new_product" in row.slices]
    named = [row for row in new if any(name.split()[0].lower() in row.text.lower() for name in ONLY_IN_TEST)]
    assert len(named) >= 0.9 * len(new), "the others misspell it"


def test_the_team_of_a_product_stands_in_its_card_and_nowhere_in_a_message(task: Task) -> None:
    owners = {document.title: re.findall("maple|orbit|anchor", document.text) for document in task.documents}
    assert all(len(set(found)) == 1 for found in owners.values())
    assert {found[0] for found in owners.values()} == set(TECHNICAL)
    assert not [row.id for row in all_rows(task) if re.search(r"\b(maple|orbit|anchor)\b", row.text.lower())]


def test_references_are_copied_and_targets_have_the_form(task: Task) -> None:
    for row in all_rows(task):
        assert not isinstance(row.target, str) and row.target is not None
        reference = row.target["reference"]
        assert reference is None or reference in row.text, row.id
    values = {name: {row.target[name] for row in all_rows(task)} for name in ("queue", "urgency")}  # type: ignore[index]
    assert values == {"queue": {"billing", "shipping", "account", *TECHNICAL}, "urgency": {"low", "normal", "high"}}


def test_no_message_is_nearly_another(task: Task) -> None:
    assert len(set(groups([row.text for row in all_rows(task)]))) == 380
