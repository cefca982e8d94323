"""task.toml, strictly: every key is known, every value has its type, or the error names the line."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from posttrain.discovery import names
from posttrain.graders.json import schema_problem
from posttrain.tasks.records import read_json, read_text
from posttrain.tasks.rows import TOOLS, Columns, are_tools
from posttrain.types import Output, ScoredBy, Split, UserError

TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "version": str,
    "instructions": str,
    "splits": dict,
    "grader": dict,
    "gold": dict,
    "scored_by": str,
    "output": dict,
    "documents": str,
    "ceiling": (int, float),
    "tools": (list, str),
    "environment": (str, dict),
}
OUTPUT_TYPES: dict[str, type | tuple[type, ...]] = {"labels": list, "schema": (dict, str), "max_tokens": int}
SPLIT_TYPES: dict[str, type | tuple[type, ...]] = {"file": str, "input": (str, list), "target": (str, list)}
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
SCORED_BY: tuple[ScoredBy, ...] = get_args(ScoredBy)


@dataclass(frozen=True)
class Source:
    """Where the rows of a split are, and which columns to take when it is a table of the user's."""

    file: str
    columns: Columns | None = None


@dataclass(frozen=True)
class Settings:
    """What task.toml says.  `splits` holds those it names; the rest are found by their names."""

    name: str
    version: str = "1"
    instructions: str = ""
    splits: Mapping[str, Source] = field(default_factory=dict)
    grader: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    gold: str = ""
    gold_options: Mapping[str, Any] = field(default_factory=dict)
    output: Output = field(default_factory=Output)
    scored_by: ScoredBy = "right"
    environment: str = "single_turn"
    environment_options: Mapping[str, Any] = field(default_factory=dict)
    documents: str = ""
    ceiling: float | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


def read_settings(path: Path) -> Settings:
    """The settings in a task.toml.  Raises UserError with file and line."""
    text = read_text(path)
    table = _parsed(path, text)
    check = _Check(path, text)
    check.keys(table, TYPES, "")
    output = _output(table.get("output", {}), check)
    grader = dict(table.get("grader", {}))
    name = grader.pop("name", "choice" if output.labels else "json" if output.schema else "")
    if not isinstance(name, str) or not name:
        raise UserError("no grader", place=str(path), remedy='add [grader] with name = "exact", for instance')
    gold = dict(table.get("gold", {}))
    if "gold" in table and not (isinstance(gold.get("name"), str) and gold["name"]):
        raise check.error("a hidden grader without a name", "gold", 'add name = "exact", for instance')
    world = table.get("environment", "single_turn")
    world = {"name": world} if isinstance(world, str) else dict(world)
    environment = world.pop("name", "")
    if environment not in (known := names("environments")):
        raise check.error(f"no environment {environment!r}", "environment", f"known: {', '.join(known)}")
    scored_by = table.get("scored_by", SCORED_BY[0])
    if scored_by not in SCORED_BY:
        raise check.error(f"scored_by is {scored_by!r}", "scored_by", 'write "right" (share of rows) or "grade" (mean)')
    ceiling = table.get("ceiling")
    if ceiling is not None and not 0 < ceiling <= 1:
        raise check.error(f"ceiling is {ceiling}", "ceiling", "give a share of rows, above 0 and up to 1")
    tools = check.file_or_value(table.get("tools", []), list, "tools")
    if not are_tools(tools):
        raise check.error("tools is not a list of tools with names", "tools", f"write {TOOLS}")
    splits = table.get("splits", {})
    check.keys(splits, dict.fromkeys(SPLITS, (str, dict)), "splits.")
    return Settings(
        name=table.get("name", path.resolve().parent.name),
        version=table.get("version", "1"),
        instructions=table.get("instructions", "").strip(),
        grader=name,
        options=grader,
        gold=gold.pop("name", ""),
        gold_options=gold,
        output=output,
        scored_by=scored_by,
        environment=environment,
        environment_options=world,
        splits={split: _source(value, split, check) for split, value in splits.items()},
        documents=table.get("documents", ""),
        ceiling=None if ceiling is None else float(ceiling),
        tools=tuple(tools),
    )


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, line = str(error).partition(" (at line ")
        place = f"{path}:{line.partition(',')[0]}" if line else str(path)
        raise UserError(f"not valid TOML: {message}", place=place, remedy="mend the file") from error
    except RecursionError as error:
        raise UserError("not valid TOML: nested too deeply", place=str(path), remedy="mend the file") from error


def _output(table: Mapping[str, Any], check: _Check) -> Output:
    check.keys(table, OUTPUT_TYPES, "output.")
    labels, schema = table.get("labels", []), table.get("schema")
    if labels and schema:
        raise check.error("both labels and a schema", "schema", "keep one of them under [output]")
    if "labels" in table and not (labels and all(isinstance(label, str) and label.strip() for label in labels)):
        raise check.error("labels is not a list of texts", "labels", 'write labels = ["yes", "no"]')
    if len(set(labels)) < len(labels):
        raise check.error("a label is given twice", "labels", "remove one")
    if schema is not None:
        schema = check.file_or_value(schema, dict, "schema")
        if problem := schema_problem(schema):
            raise check.error(f"not a JSON schema: {problem}", "schema", "correct the schema")
    if table.get("max_tokens", 1) < 1:
        raise check.error("max_tokens is below 1", "max_tokens", "give the longest answer's length in tokens")
    return Output(tuple(labels), schema, table.get("max_tokens", Output.max_tokens))


def _source(value: str | Mapping[str, Any], split: str, check: _Check) -> Source:
    if isinstance(value, str):
        return Source(value)
    check.keys(value, SPLIT_TYPES, f"splits.{split}.")
    if not value.get("file"):
        raise check.error("a split without a file", split, f'write {split} = {{ file = "rows.csv", input = "text" }}')
    asked, wanted = value.get("input"), value.get("target", [])
    if not all(isinstance(name, str) for name in (*_listed(asked or []), *_listed(wanted))):
        raise check.error("a column's name is not a text", split, 'write input = "text"')
    if asked is None and wanted:
        raise check.error("target without input", split, "name the column that holds the input too")
    columns = None if asked is None else Columns(_listed(asked), _listed(wanted))
    return Source(value["file"], columns)


def _listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class _Check:
    """Errors of one task.toml, each with its line."""

    path: Path
    text: str

    def error(self, message: str, key: str, remedy: str) -> UserError:
        lines = self.text.split("\n")
        number = next((i for i, line in enumerate(lines, 1) if line.strip().strip("[").startswith(key)), None)
        return UserError(message, place=f"{self.path}:{number}" if number else str(self.path), remedy=remedy)

    def keys(self, table: Mapping[str, Any], types: Mapping[str, type | tuple[type, ...]], prefix: str) -> None:
        for key, value in table.items():
            if key not in types:
                nearest = difflib.get_close_matches(key, types, n=1)
                hint = f"did you mean {nearest[0]!r}? " if nearest else ""
                raise self.error(f"no key {prefix + key!r}", key, f"{hint}known: {', '.join(types)}")
            expected = types[key]
            if not isinstance(value, expected) or isinstance(value, bool):
                names = [one.__name__ for one in (expected if isinstance(expected, tuple) else (expected,))]
                raise self.error(f"{prefix}{key} is a {type(value).__name__}", key, f"give a {' or a '.join(names)}")

    def file_or_value(self, value: Any, expected: type, key: str) -> Any:
        """A value given in the file itself, or as the name of a JSON file beside it."""
        if isinstance(value, str):
            place = self.path.parent / value
            value = read_json(place)
            if not isinstance(value, expected):
                raise UserError(f"not a JSON {expected.__name__}", place=str(place), remedy=f"see {key} in task.toml")
        return value
