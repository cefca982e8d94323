"""A task folder loads, or says with file and line why not; its hash is of what it holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from posttrain import tasks
from posttrain.techniques._labelled import labelled
from posttrain.types import UserError

TOML = """
name = "triage"
version = "2"
instructions = \"\"\"
Give the queue and the reference.
\"\"\"
documents = "documents"
ceiling = 0.9

[grader]
name = "json"

[output]
schema = { type = "object", properties = { queue = { enum = ["a", "b"] }, reference = { type = ["string", "null"] } }, \
required = ["queue", "reference"], additionalProperties = false }
max_tokens = 40
"""


def rows(split: str, count: int = 4) -> list[dict[str, Any]]:
    return [{"id": f"{split}{n}", "input": f"{split} message number {n}", "slices": ["short"],
             "target": {"reference": None, "queue": "ab"[n % 2]}} for n in range(count)]


def folder(path: Path, toml: str = TOML, **splits: list[dict[str, Any]]) -> Path:
    (path / "documents" / "more").mkdir(parents=True)
    (path / "documents" / "one.md").write_text("# The first\nText.\n")
    (path / "documents" / "more" / "two.txt").write_text("Plain.\n")
    (path / "task.toml").write_text(toml)
    for split, given in (splits or {name: rows(name) for name in ("train", "dev", "test")}).items():
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def test_a_folder_loads(tmp_path: Path) -> None:
    task = tasks.load(folder(tmp_path / "t"))
    assert (task.name, task.version, task.ceiling, task.output.max_tokens) == ("triage", "2", 0.9, 40)
    assert task.instructions == "Give the queue and the reference."
    assert [len(given) for given in task.splits.values()] == [4, 4, 4]
    assert [(document.id, document.title) for document in task.documents] == [("more/two.txt", "two"),
                                                                             ("one.md", "The first")]
    graded = tasks.load(folder(tmp_path / "graded", TOML.replace("ceiling", 'scored_by = "grade"\nceiling')))
    assert (task.scored_by, graded.scored_by) == ("right", "grade") and task.hash != graded.hash
    row = task.rows("train")[0]
    assert row.id == "train0" and row.slices == ("short",)
    assert list(row.target or ()) == ["queue", "reference"]  # in the schema's order, as constrained sampling writes it


def test_a_hidden_grader_is_one_more(tmp_path: Path) -> None:
    plain = tasks.load(folder(tmp_path / "plain"))
    gold = '[gold]\nname = "exact"\nignore_case = true\n'
    hidden = tasks.load(folder(tmp_path / "hidden", TOML + gold))
    other = tasks.load(folder(tmp_path / "other", TOML + gold.replace("true", "false")))
    assert plain.gold is None and len({plain.hash, hidden.hash, other.hash}) == 3
    row = hidden.rows("test")[0]
    assert hidden.gold is not None
    assert asyncio.run(hidden.gold.grade(row, json.dumps({"queue": "A", "reference": None}))).passed
    for wrong, message in (("[gold]\nignore_case = true\n", "without a name"), (gold.replace("ignore", "igmore"), "no option")):
        with pytest.raises(UserError, match=message) as caught:
            tasks.load(folder(tmp_path / message, TOML + wrong))
        assert "task.toml" in caught.value.place


def test_a_record_may_be_written_as_text(tmp_path: Path) -> None:
    as_text = [{**row, "target": json.dumps(row["target"])} for row in rows("train")]
    plain = tasks.load(folder(tmp_path / "a", train=rows("train")))
    assert tasks.load(folder(tmp_path / "b", train=as_text)).hash == plain.hash


@pytest.mark.parametrize(("old", "new", "message", "line"), [
    ('ceiling = 0.9', 'cieling = 0.9', "no key 'cieling'", 8),
    ('ceiling = 0.9', 'ceiling = 90', "ceiling is 90", 8),
    ('ceiling = 0.9', 'scored_by = "mean"', "scored_by is 'mean'", 8),
    ('version = "2"', 'version = 2', "version is a int", 3),
    ('max_tokens = 40', 'max_token = 40', "no key 'output.max_token'", 15),
    ('max_tokens = 40', 'max_tokens = 0', "below 1", 15),
    ('max_tokens = 40', 'labels = ["a"]', "both labels and a schema", 14),
    ('name = "json"', 'name = "jason"', "no grader called 'jason'", None),
    ('name = "json"', 'name = "json"\nignorecase = true', "no option 'ignorecase'", 12),
    ('name = "json"', 'name = "json"\nignore_case = "no"', "ignore_case of grader json is a str", 12),
    ('[grader]', 'environment = "world"\n[grader]', "no environment 'world'", 10),
    ('documents = "documents"', 'documents = "docs"', "no such folder", None),
    ('enum = ["a", "b"]', 'enum = "a"', "not a JSON schema", 14),
    ('enum = ["a", "b"]', '"$ref" = "#/$defs/queue"', "'#/\\$defs/queue' leads to nothing", 14),
    ('enum = ["a", "b"]', '"$ref" = "http://localhost:9/queue"', "'http://localhost:9/queue' leads to nothing", 14),
    ('enum = ["a", "b"]', '"$ref" = "#/required/first"', "leads to nothing", 14),
    ('[grader]', '[grader', "not valid TOML", 10),
    ('ceiling = 0.9', f'ceiling = {"[" * 5000}', "nested too deeply", None),
    ('required = ["queue", "reference"]', f'not = {"{ not = " * 150}{{}}{" }" * 150}', "nested too deeply", 14),
])
def test_wrong_settings_name_the_line(old: str, new: str, message: str, line: int | None, tmp_path: Path) -> None:
    path = folder(tmp_path / "t", TOML.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        tasks.load(path)
    assert error.value.remedy
    if line:
        assert error.value.place == f"{path}/task.toml:{line}"


def test_the_nearest_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        tasks.load(folder(tmp_path / "t", TOML.replace("ceiling", "cieling")))
    assert "'ceiling'" in error.value.remedy


def test_a_file_beside_task_toml_is_strict_json(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", 'tools = "tools.json"\n[grader]\nname = "exact"\n')
    for content, message in (("[" * 100_000, "nested too deeply"), ('[{"name": "f", "name": "g"}]', "given twice")):
        (path / "tools.json").write_text(content)
        with pytest.raises(UserError, match=f"not valid JSON: .*{message}") as error:
            tasks.load(path)
        assert error.value.place.startswith(str(path / "tools.json"))


def test_a_schema_may_refer_to_its_own_parts_but_not_round_in_circles(tmp_path: Path) -> None:
    own = TOML.replace('enum = ["a", "b"]', '"$ref" = "#/properties/reference"')
    assert tasks.load(folder(tmp_path / "own", own)).rows("train")
    circle = folder(tmp_path / "circle", TOML.replace('enum = ["a", "b"]', '"$ref" = "#/properties/queue"'))
    with pytest.raises(UserError, match="too deep to hold against the schema") as error:
        tasks.load(circle)
    assert error.value.place == f"{circle}/train.jsonl:1"


@pytest.mark.parametrize(("change", "message"), [
    ({"target": {"queue": "c", "reference": None}}, "does not follow the schema"),
    ({"target": {"queue": "a"}}, "does not follow the schema"), ({"target": "a"}, "is not a record"),
    ({"target": None}, "no target"), ({"input": " "}, "no input"), ({"id": "train0"}, "is taken"),
    ({"split": "train"}, "no field 'split'"),
])
def test_wrong_rows_name_the_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = rows("train")
    given[2] |= change
    path = folder(tmp_path / "t", train=given)
    with pytest.raises(UserError, match=message) as error:
        tasks.load(path)
    assert error.value.place.startswith(f"{path}/train.jsonl:3") and error.value.remedy


def test_labels_are_closed_and_an_empty_split_is_an_error(tmp_path: Path) -> None:
    toml = 'name = "t"\n[output]\nlabels = ["yes", "no"]\n'
    path = folder(tmp_path / "t", toml, train=[{"input": "a", "target": "yess"}, {"input": "b", "target": "nope"}])
    with pytest.raises(UserError, match="'yess' is not among") as error:
        tasks.load(path)
    assert error.value.place == f"{path}/train.jsonl:1" and "'yes'" in error.value.remedy
    assert "1 more" in error.value.message
    findings = tasks.check(path)
    assert [finding.place for finding in findings if finding.level == "error"] == [f"{path}/train.jsonl:1",
                                                                                  f"{path}/train.jsonl:2"]
    (path / "train.jsonl").write_text("\n")
    with pytest.raises(UserError, match="no rows"):
        tasks.load(path)


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    toml = 'name = "t"\n[grader]\nname = "exact"\n'
    given = [{"input": f"ask {n}", "target": str(n)} for n in range(3)]
    first = folder(tmp_path / "a", toml, train=given)
    known = tasks.load(first).hash
    assert known == "8ea6905219e51893f75005953c9c9182576325474a955ebd188a174c1e1f5fa9"  # on every machine
    (first / "README.md").write_text("a card")
    (first / "task.toml").write_text(toml.replace('"t"', '"another"') + "# a remark\n")
    assert tasks.load(first).hash == known
    second = folder(tmp_path / "b", toml + 'ignore_case = false\n', train=given)
    assert tasks.load(second).hash != known
    (second / "task.toml").write_text(toml)
    (second / "train.jsonl").unlink()
    (second / "train.csv").write_bytes(b"\xef\xbb\xbfinput,target\r\nask 0,0\r\nask 1,1\r\nask 2,2\r\n")
    assert tasks.load(second).hash == known
    (second / "train.csv").unlink()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given), second / "train.parquet")
    assert tasks.load(second).hash == known
    for change in ({"target": "9"}, {"input": "else"}, {"metadata": {"a": 1}}, {"slices": ["x"]}, {"id": "other"}):
        changed = folder(tmp_path / str(change), toml, train=[{**given[0], **change}, *given[1:]])
        assert tasks.load(changed).hash != known
    for settings in ('instructions = "x"\n' + toml, toml + "[output]\nmax_tokens = 5\n",
                     'documents = "documents"\n' + toml):
        (first / "task.toml").write_text(settings)
        assert tasks.load(first).hash != known


def test_the_hash_covers_a_python_grader(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", 'name = "t"\n[grader]\nname = "python"\n', train=[{"input": "a", "target": "b"}])
    (path / "grade.py").write_text("def grade(row, answer):\n    return answer == row.target\n")
    before = tasks.load(path).hash
    (path / "grade.py").write_text("def grade(row, answer):\n    return answer != ''\n")
    assert tasks.load(path).hash != before


def test_the_hash_covers_what_a_python_grader_may_import(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", 'name = "t"\n[grader]\nname = "python"\n', train=[{"input": "a", "target": "b"}])
    grade = "def grade(row, answer):\n    return answer == row.target\n"
    (path / "grade.py").write_text(grade)
    alone = tasks.load(path).hash
    assert alone == "894c7e1199f9183b8840bb072d33de2adfb82cd45e449f68044abc7a558a6a2a"  # as it was before
    (path / "grade.py").write_text("import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent))\n"
                                   "import rules_of_t\n" + grade)
    (path / "rules_of_t.py").write_text("LEAST = 1\n")
    hashes = [tasks.load(path).hash]
    (path / "rules_of_t.py").write_text("LEAST = 2\n")
    hashes.append(tasks.load(path).hash)
    (path / "more").mkdir()
    (path / "more" / "rules.py").write_text("")
    hashes.append(tasks.load(path).hash)
    assert len({alone, *hashes}) == 4
    (path / "rules_of_t.py").write_bytes(b"LEAST = 2\r\n")  # as another machine may check it out
    (path / ".hidden.py").write_text("")
    (path / "notes.txt").write_text("")
    assert tasks.load(path).hash == hashes[-1]


def test_targets_may_be_regular_expressions(tmp_path: Path) -> None:
    toml = '[grader]\nname = "contains"\nregex = true\n'
    splits = {split: [{"input": f"{split} {n} {'abc'[n] * 9}", "target": f"{split}s?|{n}"} for n in range(3)]
              for split in ("train", "dev", "test")}
    path = folder(tmp_path / "t", toml, **splits)
    task = tasks.load(path)
    assert not [finding for finding in tasks.check(path) if finding.level == "error"], "colou?r is no answer to colou?r"
    row = task.rows("test")[1]
    grades = [asyncio.run(task.grader.grade(row, answer)).passed for answer in ("tests", "1", "0", "")]
    assert grades == [True, True, False, False]
    with pytest.raises(UserError, match="no train row has a target"):
        labelled(task)  # a pattern is taught to nobody
    splits["dev"][2]["target"] = "(unclosed"
    broken = folder(tmp_path / "broken", toml, **splits)
    with pytest.raises(UserError, match="is not a regular expression") as error:
        tasks.load(broken)
    assert error.value.place == f"{broken}/dev.jsonl:3" and error.value.remedy
    assert tasks.load(folder(tmp_path / "text", toml.replace("true", "false"), **splits)).hash != task.hash


def test_splits_may_be_any_file_with_columns_named(tmp_path: Path) -> None:
    toml = """
name = "t"
[splits]
test = { file = "mine.csv", input = "text", target = "category" }
[output]
labels = ["x", "y"]
"""
    path = folder(tmp_path / "t", toml, train=[{"input": "b", "target": "x"}])
    (path / "mine.csv").write_text("text,category,noise\nhello,x,1\n")
    task = tasks.load(path)
    assert [(row.id, row.text, row.target) for row in task.rows("test")] == [("test-1", "hello", "x")]
    with pytest.raises(UserError, match="has no dev rows"):
        task.rows("dev")
    (path / "train.csv").write_text("input,target\na,x\n")
    with pytest.raises(UserError, match="which is it"):
        tasks.load(path)


def test_instructions_in_rows_and_shared_tools(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    toml = 'instructions = "Be brief."\ntools = "tools.json"\n[grader]\nname = "exact"\n'
    chat = [{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"},
                          {"role": "assistant", "content": "b"}]}]
    path = folder(tmp_path / "t", toml, train=chat)
    (path / "tools.json").write_text(json.dumps([tool]))
    task = tasks.load(path)
    assert task.name == "t"
    row = task.rows("train")[0]
    assert [message.role for message in row.messages] == ["user"] and row.tools == (tool,)


@pytest.mark.parametrize("tools", ['["find"]', '[{"type": "function", "function": {}}]', '{"name": "find"}'])
def test_tools_have_names(tools: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "t", 'tools = "tools.json"\n[grader]\nname = "exact"\n', train=[{"input": "a", "target": "b"}])
    (path / "tools.json").write_text(tools)
    with pytest.raises(UserError, match=r"tools|not a JSON list"):
        tasks.load(path)
    (path / "task.toml").write_text('[grader]\nname = "exact"\n')
    (path / "train.jsonl").write_text(json.dumps({"input": "a", "target": "b", "tools": json.loads(tools)}) + "\n")
    if not tools.startswith("{"):
        with pytest.raises(UserError, match="tools") as error:
            tasks.load(path)
        assert error.value.place == f"{path}/train.jsonl:1"


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    folder(tmp_path / "support")
    with pytest.raises(UserError) as error:
        tasks.load(tmp_path / "suport")
    assert str(tmp_path / "support") in error.value.remedy
    with pytest.raises(UserError) as error:
        tasks.load("arithmetics")
    assert "'arithmetic'" in error.value.remedy
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match="a file, not a task"):
        tasks.load(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"no task\.toml"):
        tasks.load(tmp_path)


def pairs(task: Any, split: str) -> set[frozenset[str]]:
    """The operands in a split, in no order; two equal ones are a set of one."""
    return {frozenset(word.strip("?") for word in row.text.split() if word.strip("?").isdigit())
            for row in task.rows(split)}


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic:two_digit"])
def test_arithmetic_holds_out_unordered_pairs(name: str) -> None:
    task = tasks.load(name)
    assert task.hash == tasks.load(name).hash and task.name == name
    train, dev, test = (pairs(task, split) for split in ("train", "dev", "test"))
    assert not train & dev and not train & test and not dev & test
    shown = {frozenset(word.strip("?") for word in line.split(" A:")[0].split() if word.strip("?").isdigit())
             for line in task.instructions.split("\n") if line.startswith("Q:")}
    assert len(shown) == (0 if ":" in name else 4) and shown <= train
    answer = "whole equation" if ":" in name else "number"
    assert task.instructions.splitlines()[0] == f"Answer with the {answer} and nothing else."
    for split in task.splits.values():
        for row in split:
            left, operator, right = (asked := row.text.removeprefix("What is ").rstrip("?")).split()
            result = int(left) + int(right) if operator == "+" else int(left) - int(right)
            assert row.target == (f"{asked} = {result}" if ":" in name else str(result))
    assert len(task.rows("test")) == (200 if ":" in name else 31)
    assert not [finding for finding in tasks.check(task) if finding.level != "note"]


def test_arithmetic_has_sums_and_differences() -> None:
    task = tasks.load("arithmetic:two_digit")
    assert {slice for row in task.rows("test") for slice in row.slices} == {"sum", "difference"}
    with pytest.raises(UserError, match="no variant"):
        tasks.load("arithmetic:three_digit")
