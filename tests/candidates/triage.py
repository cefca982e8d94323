"""A made-up task of records with everything floors must deal with: closed fields, copied references, decoys, gaps."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from posttrain import graders
from posttrain.types import Message, Output, Row, Target, Task

QUEUES = {"billing": ["invoice {} is wrong", "charged twice, see {}", "refund {} please", "what is the price"],
          "shipping": ["where is {}", "parcel {} never came", "box crushed, order {}", "late delivery"],
          "account": ["cannot sign in", "change my address", "reset password, case {}", "new user please"]}
URGENCIES = {"high": ["we are down", "by tonight", "nothing can go out"], "normal": ["thanks", "regards"],
             "low": ["no rush", "just asking"]}
DECOYS = ["", "call 0161 {}", "firmware 4.{}.1", "PO {}"]
SCHEMA = {"type": "object", "properties": {"queue": {"enum": list(QUEUES)}, "urgency": {"enum": list(URGENCIES)},
                                           "reference": {"type": ["string", "null"]}}}


def reference(draw: random.Random) -> str:
    return draw.choice([f"{draw.choice('ABDK')}-{draw.randint(10000, 99999)}", f"INV{draw.randint(1000, 9999)}"])


def row(draw: random.Random, number: int) -> Row:
    queue, urgency = draw.choice(list(QUEUES)), draw.choice(list(URGENCIES))
    asked = draw.choice(QUEUES[queue])
    copied = reference(draw) if "{}" in asked else None
    decoy = draw.choice(DECOYS).format(draw.randint(100000, 999999))
    text = ". ".join(part for part in (asked.format(copied), draw.choice(URGENCIES[urgency]), decoy) if part)
    target = {"queue": queue, "urgency": urgency, "reference": copied}
    return Row(f"r{number}", (Message("user", text),), target)


def record_task(train: int = 240, seed: int = 0) -> Task:
    draw = random.Random(seed)
    rows = tuple(row(draw, i) for i in range(train + 160))
    splits = {"train": rows[:train], "dev": rows[train:train + 60], "test": rows[train + 60:]}
    return Task("triage", "1", "hash", "Sort.", splits, graders.load("json", {}), Output(schema=SCHEMA))


def label_task() -> Task:
    records = record_task()
    splits = {name: tuple(Row(row.id, row.messages, record(row.target)["queue"]) for row in rows)
              for name, rows in records.splits.items()}
    return Task("queues", "1", "hash", "Sort.", splits, graders.load("exact", {}), Output(labels=tuple(QUEUES)))


def task_of(pairs: list[tuple[str, Target]], output: Output = Output(),
            dev: list[tuple[str, Target]] | None = None) -> Task:
    splits = {name: tuple(Row(f"{name}{i}", (Message("user", text),), target) for i, (text, target) in enumerate(rows))
              for name, rows in (("train", pairs), ("dev", dev or []))}
    grader = graders.load("json" if isinstance(pairs[0][1], Mapping) else "exact", {})
    return Task("small", "1", "hash", "Sort.", splits, grader, output)


def record(target: Target | None) -> Mapping[str, Any]:
    assert isinstance(target, Mapping)
    return target
