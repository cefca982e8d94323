"""Files as OpenAI's fine-tuning takes them, into a task: what a job teaches.

    supervised       {"messages": [..., {"role": "assistant", ...}], "tools": [...]}
    dpo              {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}
    reinforcement    {"messages": [... the last from the user ...], "anything": ...}, and a grader that is told the rest

Nothing is guessed about the form of answers and no prompt is lifted out of the rows: whoever asks the model asks as
they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from posttrain.graders import openai
from posttrain.runs import write_json, write_text
from posttrain.tasks.loading import load
from posttrain.tasks.messages import messages
from posttrain.tasks.near_duplicates import groups
from posttrain.tasks.proposing import propose
from posttrain.tasks.readers import jsonl
from posttrain.tasks.records import Record
from posttrain.tasks.rows import are_tools, make_rows
from posttrain.tasks.splitting import assign
from posttrain.tasks.writing import row_line, toml
from posttrain.types import Row, Task, UserError

Method = Literal["supervised", "dpo", "reinforcement"]

FEWEST = 4
"""Rows of a file that a job learns from."""

HELD_OUT = {"train": 0.9, "dev": 0.1}
"""Of the rows of a training file without a validation file: the dev rows say when to stop."""

LONGEST_ANSWER = 512
"""Tokens, unless told otherwise."""

GRADER = "grader.json"


def read(path: Path, method: Method) -> list[Row]:
    """The rows of a file, in order.  Raises UserError naming the line of the first that is wrong, and how many are."""
    try:
        records = jsonl.read(path)
    except UserError as unreadable:
        raise _by_line(unreadable) from unreadable
    if len(records) < FEWEST:
        raise UserError(f"{len(records)} rows", place="the file", remedy=f"give {FEWEST} or more")
    rows, problems = _to_answer(records) if method == "reinforcement" else _answered(records, method)
    if problems:
        more = f" (and {len(problems) - 1:,} more like it)" if len(problems) > 1 else ""
        first = problems[0]
        raise _by_line(UserError(f"{first.message}{more}", place=first.place, remedy=first.remedy))
    return rows


def write(
    folder: Path,
    training: Sequence[Row],
    validation: Sequence[Row],
    *,
    seed: int,
    grader: Mapping[str, Any] | None = None,
    longest: int | None = None,
) -> Task:
    """Writes a task for these rows and loads it; `Task.notes` says what was chosen.  Raises UserError.

    `grader` is one as OpenAI's API describes it, and `longest` how many tokens an answer may have that it judges; None:
    answers are held against those of the rows.
    """
    splits, notes = _splits(training, validation, seed)
    everything = [*training, *validation]
    options: Mapping[str, Any]
    if grader is not None:
        write_json(folder / GRADER, grader)
        name, options, longest = "openai", {"file": GRADER}, longest or LONGEST_ANSWER
        splits = {split: [_with_reference(row, grader) for row in rows] for split, rows in splits.items()}
    else:
        proposal = propose([replace(row, tools=()) for row in everything], grader="")
        name, options, longest = proposal.grader, proposal.options, proposal.output.max_tokens
        if proposal.output.labels or proposal.output.schema:  # a form that whoever asks would have to ask for
            name, options = "exact", {}
    table = {
        "name": folder.parent.name,
        "version": "1",
        "instructions": "",
        "grader": {"name": name, **options},
        "scored_by": "grade" if grader is not None else "right",
        "output": {"max_tokens": longest},
    }
    for split, rows in splits.items():
        rows = [replace(row, id=f"{split}-{number}") for number, row in enumerate(rows, 1)]
        write_text(folder / f"{split}.jsonl", "".join(row_line(row, with_id=True) + "\n" for row in rows))
    write_text(folder / "task.toml", toml(table))  # last: a folder with it is whole
    return replace(load(folder), notes=tuple(notes))


def _splits(training: Sequence[Row], validation: Sequence[Row], seed: int) -> tuple[dict[str, list[Row]], list[str]]:
    if validation:
        return {"train": list(training), "dev": list(validation)}, []
    near = groups(["\n".join(message.content for message in row.messages) for row in training])
    chosen = assign(near, [""] * len(near), HELD_OUT, seed=seed)
    splits = {split: [row for row, one in zip(training, chosen, strict=True) if one == split] for split in HELD_OUT}
    if not splits["dev"] or not splits["train"]:
        raise UserError(
            f"{len(training)} rows that are all alike leave none to validate on",
            place="the file",
            remedy="give a validation file",
        )
    return splits, [
        f"No validation file: {len(splits['dev']):,} of {len(training):,} rows are held out, to see when to stop"
    ]


def _answered(records: Sequence[Record], method: Method) -> tuple[list[Row], list[UserError]]:
    """Rows whose answers are learnt; for `dpo`, with worse ones beside them."""
    rows, problems = make_rows(records, "row", need_target=True)
    found = []
    for row in rows.values():
        if method == "dpo" and row.rejected is None:
            remedy = "give input, preferred_output and non_preferred_output"
            problems.append(UserError("no pair of answers", place=row.place, remedy=remedy))
        elif method == "supervised" and row.rejected is not None:
            remedy = "use it with the method dpo, or give messages"
            problems.append(UserError("a pair of answers, and not a conversation", place=row.place, remedy=remedy))
        else:
            found.append(row)
    return found, problems


def _to_answer(records: Sequence[Record]) -> tuple[list[Row], list[UserError]]:
    """Rows that only a grader judges: all but the messages and tools is `item` to it."""
    rows, problems = [], []
    for number, record in enumerate(records, 1):
        item = {key: value for key, value in record.fields.items() if key not in ("messages", "tools")}
        try:
            asked = messages(record.fields.get("messages"), record.place)
            if asked[-1].role not in ("user", "tool"):
                remedy = "end the messages with the user's: the model is to answer"
                raise UserError("nobody asks at the end", place=record.place, remedy=remedy)
            tools = record.fields.get("tools") or []
            if not are_tools(tools):
                remedy = 'write [{"type": "function", "function": {"name": ..., "parameters": {...}}}]'
                raise UserError("tools is not a list of tools with names", place=record.place, remedy=remedy)
            rows.append(Row(f"row-{number}", asked, tools=tuple(tools), metadata=item, place=record.place))
        except UserError as error:
            problems.append(error)
    return rows, problems


def _with_reference(row: Row, grader: Mapping[str, Any]) -> Row:
    """A grader that compares with a text says what is wanted."""
    return replace(row, target=openai.reference(grader, row)) if row.target is None else row


def _by_line(error: UserError) -> UserError:
    """Where it is in the file that was sent, which lies elsewhere here."""
    line = error.place.rpartition(":")[2]
    return UserError(error.message, place=f"line {line}" if line.isdigit() else "the file", remedy=error.remedy)
