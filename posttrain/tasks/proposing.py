"""From the wanted answers alone: what form answers have, which grader fits, what a model should be told."""

from __future__ import annotations

import difflib
import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.graders.json import read_object
from posttrain.tasks.findings import some
from posttrain.tasks.rows import has_tests, plain_text
from posttrain.types import Output, Row, Target, UserError, target_text

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))")
MOST_LABELS = 200
MOST_VALUES = 30
"""Of a field of a record, to count as a closed set."""
LONGEST_LABEL = 80
"""Characters."""
PROGRAM_BYTES = 1000
WRITE_A_PROGRAM = "Write the program in Python. Answer with one block of code and nothing else."


@dataclass(frozen=True)
class Proposal:
    """`strata` gives each row the label that the splits should hold in proportion ("" where there is none)."""

    grader: str
    options: Mapping[str, Any]
    output: Output
    instructions: str
    strata: tuple[str, ...]
    notes: tuple[str, ...] = ()
    as_records: bool = False


@dataclass(frozen=True)
class Form:
    """What the answers look like."""

    grader: str
    note: str
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


def propose(rows: Sequence[Row], *, grader: str = "", asked: str = "text", wanted: str = "label") -> Proposal:
    """A proposal for rows that all have a target, or assertions of their own.

    `grader` is the user's choice, if any; `asked` and `wanted` name the columns, for the instructions.
    """
    targets = [row.target for row in rows if row.target is not None]
    if grader in ("", "code") and all(map(has_tests, rows)):
        longest = max((len(target_text(target).encode()) for target in targets), default=PROGRAM_BYTES)
        note = "grader code: each row brings tests, which a program passes or not, in a sandbox"
        output = Output(max_tokens=longest // 2 + 8)
        return Proposal("code", {}, output, WRITE_A_PROGRAM, ("",) * len(rows), (note,))
    if not targets and not any(row.metadata.get("assert") for row in rows):  # a grader of the user's own says it all
        return Proposal(grader or "python", {}, Output(), "", ("",) * len(rows), ("",))
    if len(targets) < len(rows):
        return Proposal(
            grader or "assertions", {}, Output(), "", ("",) * len(rows), ("grader assertions: each row brings its own",)
        )
    records = [read_object(target) if isinstance(target, str) else target for target in targets]
    as_records = all(record for record in records) and grader in ("", "json", "python")
    if grader == "json" and not as_records:
        raise UserError("the targets are not all records", remedy="name several target columns, or another grader")
    form = (
        _records([record for record in records if record], grader)
        if as_records
        else _texts([target_text(target) for target in targets], grader)
    )
    longest = max(len(target_text(target).encode()) for target in targets)
    # No tokenizer here: two bytes a token is more tokens than any known tokenizer needs for ordinary text.
    output = Output(form.labels, form.schema, max(8, longest // 2 + 8))
    strata = [_stratum(target, form) for target in targets]
    notes = (form.note, *_mixed(records), *_seen_once(rows, form.labels))
    return Proposal(
        form.grader, form.options, output, _instructions(form, asked, wanted), tuple(strata), notes, as_records
    )


def _texts(targets: Sequence[str], grader: str) -> Form:
    counts = Counter(targets)
    numeric = all(NUMBER.fullmatch(target) for target in counts)
    if grader == "number" or (not grader and numeric and not _class_numbers(counts)):
        if not numeric:
            wrong = next(target for target in counts if not NUMBER.fullmatch(target))
            raise UserError(f"the target {wrong!r} is not a number", remedy="propose another grader with --grader")
        decimals = max(len(target.partition(".")[2]) for target in counts)
        options = {"tolerance": 0.005} if decimals > 2 else {}
        return Form(
            "number", f"grader number: every target is a number{'; within 0.005 is right' if options else ''}", options
        )
    if grader == "choice" or (not grader and _closed(counts)):
        labels = tuple(sorted(counts, key=lambda label: (len(label), label) if numeric else (0, label)))
        folded = {label.strip().strip("\"'`*.").strip().casefold() for label in labels}
        few, many = min(counts.values()), max(counts.values())
        rows = f"{few:,} rows each" if few == many else f"{few:,} to {many:,} rows each"
        return Form(
            "choice",
            f"grader choice: {len(labels)} labels, {rows}",
            {"ignore_case": False} if len(folded) < len(labels) else {},
            labels,
        )
    if grader:
        return Form(grader, f"grader {grader}: as asked")
    words = statistics.median(len(target.split()) for target in targets)
    if words <= 5:
        return Form("exact", "grader exact (case ignored): targets are short and seldom repeat", {"ignore_case": True})
    return Form(
        "similarity",
        "grader similarity (ROUGE-L): targets are free text, so scores are only a rough guide; "
        "a python grader of your own says more",
        {"metric": "rouge_l"},
    )


def _class_numbers(counts: Counter[str]) -> bool:
    """Numbers that are names of classes: 0, 1, 2 ... or 1, 2, 3 ... up to ten of them, each at least five times."""
    if len(counts) > 10 or not all(value.isdecimal() for value in counts):
        return False
    values = sorted(map(int, counts))
    return (
        values[0] in (0, 1)
        and values == list(range(values[0], values[0] + len(values)))
        and len(values) > 1
        and min(counts.values()) >= 5
    )


def _closed(counts: Counter[str]) -> bool:
    """A closed set: short values, three rows or more for each on average; what is seen once is the exception.

    Slips of the pen are seen once: at most one row in twenty, and no more of them than of real values.
    """
    once = sum(count == 1 for count in counts.values())
    return (
        1 < len(counts) <= MOST_LABELS
        and max(map(len, counts)) <= LONGEST_LABEL
        and counts.total() >= 3 * len(counts)
        and once <= 0.05 * counts.total()
        and once <= len(counts) / 2
        and len(counts) - once > 1
    )


def _mixed(records: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """A note where some targets are records, and some (None) are texts: no grader of ours judges both well."""
    texts = records.count(None)
    if texts in (0, len(records)):
        return []
    return [
        f"{len(records) - texts:,} targets are records or tool calls, {texts:,} are texts: make two tasks of them, "
        "or judge them with a python grader"
    ]


def _seen_once(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """A note of the labels that one row has, each with its place and the label that may have been meant."""
    counts = Counter(target_text(row.target) for row in rows if row.target is not None)
    others = [label for label in labels if counts[label] > 1]
    found = []
    for row in rows:
        label = target_text(row.target or "")
        if label in labels and counts[label] == 1:
            nearest = difflib.get_close_matches(label, others, n=1)
            found.append(f"{label!r} ({row.place}{f'; did you mean {nearest[0]!r}?' if nearest else ''})")
    return [f"labels that one row has: {some(found)}"] if found else []


def _records(records: Sequence[Mapping[str, Any]], grader: str) -> Form:
    fields = list(dict.fromkeys(name for record in records for name in record))
    properties = {name: _property([record.get(name) for record in records]) for name in fields}
    always = [name for name in fields if all(name in record for record in records)]
    schema = {"type": "object", "properties": properties, "required": always, "additionalProperties": False}
    kinds = "; ".join(f"{name}: {_described(property)}" for name, property in properties.items())
    return Form(grader or "json", f"grader json, one score a field ({kinds})", schema=schema)


def _property(values: Sequence[Any]) -> dict[str, Any]:
    """The schema of one field: a closed set of texts, or the JSON types it was seen with.

    TOML has no null, so "or null" is spelt as a type.
    """
    present = [value for value in values if value is not None]
    texts = Counter(value for value in present if isinstance(value, str))
    if present and texts.total() == len(present) and len(texts) <= MOST_VALUES and _closed(texts):
        closed = {"enum": sorted(texts)}
        return closed if len(present) == len(values) else {"anyOf": [closed, {"type": "null"}]}
    types = list(dict.fromkeys(_type(value) for value in present)) or ["string"]
    if "number" in types and "integer" in types:
        types.remove("integer")
    if len(present) < len(values) or not present:
        types.append("null")
    return {"type": types[0] if len(types) == 1 else types}


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _described(property: Mapping[str, Any]) -> str:
    if "anyOf" in property:
        return f"{_described(property['anyOf'][0])} or null"
    if "enum" in property:
        return "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in property["enum"])
    types = property["type"] if isinstance(property["type"], list) else [property["type"]]
    return " or ".join("text" if name == "string" else name for name in types)


def _instructions(form: Form, asked: str, wanted: str) -> str:
    """Enough for a model that was never taught to have a fair chance: what is asked, and every allowed answer."""
    asked, wanted = asked.replace("_", " "), wanted.replace("_", " ")
    if form.labels:
        return (
            f"Read the {asked} and give its {wanted}. Answer with exactly one of these and nothing else:\n"
            + "\n".join(form.labels)
        )
    if form.schema:
        fields = "\n".join(f"- {name}: {_described(property)}" for name, property in form.schema["properties"].items())
        return f"Read the {asked} and fill in these fields. Answer with one JSON object and nothing else.\n{fields}"
    if form.grader == "number":
        return "Answer with one number and nothing else."
    if form.grader == "exact":
        return f"Read the {asked} and give the {wanted}. Answer with the {wanted} and nothing else."
    return f"Read the {asked} and write the {wanted}."


def _stratum(target: Target, form: Form) -> str:
    if form.labels:
        return target_text(target)
    if form.schema:
        record = read_object(target) if isinstance(target, str) else target
        closed = [name for name, property in form.schema["properties"].items() if "enum" in str(property)]
        return " | ".join(plain_text((record or {}).get(name)) for name in closed)
    return ""
