"""A task folder from somebody's file, with every guess said in words: `posttrain init`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain import graders
from posttrain.discovery import find
from posttrain.graders.code import NAMES as PROGRAM
from posttrain.graders.json import read_object
from posttrain.runs import write_text
from posttrain.tasks import own_grader
from posttrain.tasks.columns import Guess, guess_columns, taken
from posttrain.tasks.loading import load
from posttrain.tasks.near_duplicates import groups
from posttrain.tasks.proposing import Proposal, propose
from posttrain.tasks.readers import HUB, read_records
from posttrain.tasks.records import Record
from posttrain.tasks.rows import Incomplete, answered, has_target, make_rows
from posttrain.tasks.splitting import SHARES, SHARES_WITH_TEST, assign
from posttrain.tasks.writing import card, row_line, toml
from posttrain.types import Row, Task, UserError


def create(
    file: str | Path,
    *,
    folder: Path,
    test: str | Path | None = None,
    input: str = "",
    target: Sequence[str] = (),
    grader: str = "",
    seed: int = 0,
) -> Task:
    """Writes a task folder for the rows of `file` (and of `test`, which then is the test split) and loads it.

    `input` and `target` name columns; several targets make a record; a `grader` that ends in .py is a file to be
    copied, or begun where there is none.  `Task.notes` says what was guessed.
    Raises UserError when the folder is taken, or something cannot be guessed.
    """
    if (folder / "task.toml").exists():
        raise UserError(
            "there is a task here already",
            place=str(folder / "task.toml"),
            remedy="choose another folder, or remove this one",
        )
    test = test or _test_of_hub(file)
    records = {"": read_records(file)} | ({"test": read_records(test)} if test else {})
    own = Path(grader) if grader.endswith(".py") else None
    guess = guess_columns(records[""], _short(file), input, target, judged_otherwise=own is not None)
    rows, notes = _rows(records, guess, judged_otherwise=own is not None)
    rows, instructions = _lift_instructions(rows)
    everything = [row for part in rows.values() for row in part]
    asked, wanted = _names(guess)
    proposal = propose(everything, grader="" if own else grader, asked=asked, wanted=wanted)
    if not own:
        graders.load(proposal.grader, proposal.options, folder, proposal.output)  # refuse before anything is written
    splits, split_notes = _split(file, everything, len(rows.get("test", ())), proposal, seed)
    if own:
        note = own_grader.write(folder, own, proposal.grader)
        proposal = replace(proposal, grader="python", options={}, notes=(note, *proposal.notes[1:]))
    if instructions:
        proposal = replace(proposal, instructions=instructions)
        split_notes.append("instructions: the system prompt that every row begins with")
    notes = [*guess.notes, *notes, *proposal.notes, *split_notes]
    _write(folder, file, splits, proposal, notes)
    return replace(load(folder), notes=tuple(notes))


def _rows(
    records: Mapping[str, Sequence[Record]], guess: Guess, *, judged_otherwise: bool
) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows by part.  Rows without an input or a target are left out, and counted (but where answers are
    `judged_otherwise`, and no row has a target); anything else wrong is an error."""
    made, problems = {}, {}
    for part, given in records.items():
        made[part], problems[part] = make_rows(given, part or "row", columns=guess.columns)
        broken = [problem for problem in problems[part] if not isinstance(problem, Incomplete)]
        if broken:
            raise broken[0]
    made, notes = _with_targets(made, records)
    known = any(has_target(row) for given in made.values() for row in given.values())
    optional = judged_otherwise and not known
    if optional:
        notes.append("no row says what is wanted: your grader alone judges, and nothing can be learnt from examples")
    rows = {}
    for part, given in records.items():
        rows[part] = [_stripped(row) for row in made[part].values() if optional or has_target(row)]
        left_out = sorted(
            {problem.place for problem in problems[part]}
            | {place for place, row in made[part].items() if not (optional or has_target(row))},
            key=[record.place for record in given].index,
        )
        if not rows[part]:
            raise UserError(
                "no row has both an input and a wanted answer",
                place=left_out[0],
                remedy="end each conversation with the assistant's message, or give each row a target",
            )
        if left_out:
            notes.append(
                f"{len(left_out):,} of {len(given):,} rows left out: they have no input or no target "
                f"(first: {left_out[0]})"
            )
    seen = {"assert", *(name for names in PROGRAM.values() for name in names)}  # by graders of ours
    kept = {key: None for part in rows.values() for row in part for key in row.metadata if key not in seen}
    if kept:
        notes.append(f"kept as metadata, which only a python grader sees: {', '.join(kept)}")
    ids = Counter(row.id for part in rows.values() for row in part)
    own = any(record.fields.get("id") is not None for part in records.values() for record in part)
    if own and max(ids.values()) > 1:
        notes.append("ids repeat, so rows are numbered anew")
    if not own or max(ids.values()) > 1:
        rows = {part: [replace(row, id="") for row in given] for part, given in rows.items()}
    return rows, [*taken(records[""], [row for part in rows.values() for row in part]), *notes]


Made = dict[str, dict[str, Row]]
"""Rows by part and place."""


def _with_targets(made: Made, records: Mapping[str, Sequence[Record]]) -> tuple[Made, list[str]]:
    """Logs nobody has labelled: what was answered in them is what is wanted, and that is said."""
    rows = [row for part in made.values() for row in part.values()]
    if any(record.fields.get("target") is not None for part in records.values() for record in part):
        return made, []
    if not any(has_target(row) for row in rows) and any(row.answer is not None for row in rows):
        copied = {
            part: {place: replace(row, target=_wanted(row.answer), answer=None) for place, row in given.items()}
            for part, given in made.items()
        }
        return copied, [
            "wanted: what was answered in the log, as no row has a target: candidates are taught and judged by it, "
            "right or wrong; correct the targets to ask for better"
        ]
    cut = {
        part: {place: row if has_target(row) else answered(row) or row for place, row in given.items()}
        for part, given in made.items()
    }
    shortened = sum(cut[part][place] != row for part, given in made.items() for place, row in given.items())
    note = (
        f"{shortened:,} conversations go on after the last assistant message: that message is wanted, the rest left out"
    )
    return cut, [note] if shortened else []


def _wanted(answer: str | None) -> str | None:
    """An answer as a target: an empty one is none."""
    return answer if answer and answer.strip() else None


def _stripped(row: Row) -> Row:
    """Without white space around a target of one line: "yes " and "yes" are one label."""
    one_line = isinstance(row.target, str) and "\n" not in row.target.strip()
    return replace(row, target=str(row.target).strip()) if one_line else row


def _lift_instructions(rows: dict[str, list[Row]]) -> tuple[dict[str, list[Row]], str]:
    """A system prompt shared by all rows is the task's instructions."""
    first = {row.messages[0] for part in rows.values() for row in part}
    if len(first) != 1 or (system := first.pop()).role != "system":
        return rows, ""
    return {
        part: [replace(row, messages=row.messages[1:]) for row in given] for part, given in rows.items()
    }, system.content.strip()


def _names(guess: Guess) -> tuple[str, str]:
    """What to call the input and the target in instructions."""
    if guess.columns is None:
        return "text", "answer"
    asked = guess.columns.input[0] if len(guess.columns.input) == 1 else "text"
    wanted = guess.columns.target[0] if len(guess.columns.target) == 1 else "answer"
    return ("text" if asked == "input" else asked), ("answer" if wanted in ("target", "output") else wanted)


def _split(
    file: str | Path, rows: Sequence[Row], tests: int, proposal: Proposal, seed: int
) -> tuple[dict[str, list[Row]], list[str]]:
    """The splits; the last `tests` rows are the test split when there are any."""
    near = groups(["\n".join(message.content for message in row.messages) for row in rows])
    rest = len(rows) - tests
    shares = SHARES_WITH_TEST if tests else SHARES
    chosen = assign(near[:rest], proposal.strata[:rest], shares, seed=seed) + ["test"] * tests
    splits = {split: [row for row, one in zip(rows, chosen, strict=True) if one == split] for split in SHARES}
    empty = [split for split, given in splits.items() if not given]
    if empty:
        raise UserError(
            f"{rest} row{'s' * (rest != 1)} cannot be split: none left for {' and '.join(empty)} "
            "(near-duplicates stay together)",
            place=str(file),
            remedy="give more rows, or a test file with --test",
        )
    sizes = ", ".join(f"{len(given):,} {split}" for split, given in splits.items())
    stratified = ", every label in proportion" if any(proposal.strata) else ""
    notes = [f"splits: {sizes}{' (the file given)' if tests else ''}{stratified}; seed {seed}"]
    counts = Counter(near[:rest])
    kin = sum(count for count in counts.values() if count > 1)
    if kin:
        notes.append(
            f"{kin:,} rows are near-duplicates of others; each of their "
            f"{sum(count > 1 for count in counts.values()):,} groups is on one side"
        )
    leaked = sum(group in counts for group in near[rest:])
    if leaked:
        notes.append(
            f"test rows that are near-duplicates of rows in the other file: {leaked:,} of {tests:,}; "
            "scores on them are flattered"
        )
    return splits, notes


def _write(
    folder: Path, file: str | Path, splits: Mapping[str, Sequence[Row]], proposal: Proposal, notes: Sequence[str]
) -> None:
    output: dict[str, Any] = {"max_tokens": proposal.output.max_tokens}
    if proposal.output.labels:
        output["labels"] = list(proposal.output.labels)
    if proposal.output.schema:
        output["schema"] = proposal.output.schema
    table = {
        "name": folder.resolve().name,
        "version": "1",
        "instructions": proposal.instructions,
        "grader": {"name": proposal.grader, **proposal.options},
        "output": output,
    }
    for split, rows in splits.items():
        if proposal.as_records:
            rows = [
                replace(row, target=read_object(row.target) if isinstance(row.target, str) else row.target)
                for row in rows
            ]
        write_text(folder / f"{split}.jsonl", "".join(row_line(row, with_id=bool(row.id)) + "\n" for row in rows))
    write_text(folder / "README.md", card(str(table["name"]), shlex.quote(str(file)), splits, notes))
    write_text(folder / "task.toml", toml(table))  # last: a folder with it is whole


def _test_of_hub(file: str | Path) -> str | None:
    """The test split of a data set on the hub, when it has one and no split was named."""
    if not str(file).startswith(HUB) or "@" in str(file):
        return None
    splits = find("tasks.readers", "hub").splits(str(file)[len(HUB) :])
    return f"{file}@test" if "test" in splits and "train" in splits else None


def _short(file: str | Path) -> str:
    return str(file) if str(file).startswith(HUB) else Path(file).name
