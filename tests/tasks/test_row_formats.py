"""Every format and shape gives the rows that were put in, or an error with its place."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.tasks.columns import answer_columns, guess_columns
from posttrain.tasks.readers import read_records
from posttrain.tasks.records import Record, Unreadable
from posttrain.tasks.rows import Columns, make_rows
from posttrain.tasks.writing import row_line, toml
from posttrain.types import Message, Row, UserError

TABLE = [{"input": 'He said "hi", then\nleft; ok', "target": "greeting"},
         {"input": "😀 \u2028 tab\there", "target": "emoji"}, {"input": "Ünï", "target": "7"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".yaml", ".yml"):
        path.write_text(yaml.safe_dump(rows, allow_unicode=True), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def row(fields: dict[str, Any], **options: Any) -> Row:
    return row_of([Record("f:1", fields)], **options)


def row_of(records: list[Record], columns: Columns | None = None, **options: Any) -> Row:
    rows, problems = make_rows(records, "row", columns=columns, **options)
    if problems:
        raise problems[0]
    (made,) = rows.values()
    return made


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "csv", "tsv", "parquet", "json", "yaml", "yml"])
def test_every_format_gives_the_same_rows(ending: str, tmp_path: Path) -> None:
    records = read_records(write(tmp_path / f"rows.{ending}", TABLE))
    assert [dict(record.fields) for record in records] == TABLE
    rows, problems = make_rows(records, "row", strict=True)
    assert not problems
    assert [(one.id, one.text, one.target) for one in rows.values()] == \
        [(f"row-{n}", one["input"], one["target"]) for n, one in enumerate(TABLE, 1)]


def test_hub_data_sets_name_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    (tmp_path / "set").mkdir()
    data.to_parquet(tmp_path / "set" / "train-0.parquet")
    records = read_records(f"hub:{tmp_path / 'set'}")
    assert [dict(record.fields) for record in records] == [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"},
                                                           {"text": "c", "label": None}]
    assert records[2].place == f"hub:{tmp_path / 'set'}@train, row 3"
    with pytest.raises(UserError, match="cannot load"):
        read_records(f"hub:{tmp_path / 'set'}@nosuch")


def test_bom_and_crlf_and_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefftext;label\r\n"a; ""b""";x\r\n\r\nc, d;y\r\n'.encode())
    records = read_records(path)
    assert [tuple(record.fields.items()) for record in records] == [(("text", 'a; "b"'), ("label", "x")),
                                                                    (("text", "c, d"), ("label", "y"))]
    assert [record.place for record in records] == [f"{path}:2", f"{path}:4"]
    path = tmp_path / "t.jsonl"
    path.write_bytes('\ufeff{"input": "a\u2028b\u0085", "target": "x"}\r\n\r\n{"input": "c", "target": 3}\r\n'.encode())
    records = read_records(path)
    assert records[0].fields["input"] == "a\u2028b\u0085"
    assert [record.place for record in records] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize("content", [
    'text, or so;label\n"a, b";x\n"c";y\n', "text, or so\tlabel\na, b\tx\nc\ty\n", '"text, or so",label\n"a, b",x\nc,y\n',
    "text, or so;label\na, b;x\nc;y\n", '"text, or so","label"\n"a, b","x"\n"c","y"\n',
])
def test_a_columns_name_may_hold_what_might_be_the_delimiter(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert [dict(record.fields) for record in read_records(tmp_path / "a.csv")] == [
        {"text, or so": "a, b", "label": "x"}, {"text, or so": "c", "label": "y"}]


def test_what_spreadsheets_add_is_no_data(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('\n text, label,,\n"a", "b, c",,\nd,e\nf,,,\n,,,\n')
    assert [tuple(record.fields.items()) for record in read_records(path)] == [
        (("text", "a"), ("label", "b, c")), (("text", "d"), ("label", "e")), (("text", "f"), ("label", None)),
        (("text", None), ("label", None))]
    path.write_text("sep=;\ntext;label\nhello, you;x\n")
    assert [(record.place, record.fields["text"]) for record in read_records(path)] == [(f"{path}:3", "hello, you")]
    path.write_text("text\tlabel\nhello, you\tx\n")
    assert read_records(path)[0].fields == {"text": "hello, you", "label": "x"}


def test_what_can_be_read_of_a_broken_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\na,b\nc\nd,e\nf,"g" h\ni,j\n')
    with pytest.raises(Unreadable) as error:
        read_records(path)
    assert [problem.place for problem in error.value.problems] == [f"{path}:3", f"{path}:5"]
    assert [record.place for record in error.value.records] == [f"{path}:2", f"{path}:4"]


def test_parquet_with_nulls_bytes_and_nested_values(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [
        {"input": b"raw", "target": {"a": [1, None], "b": {"c": None}}, "contexts": ["one", None, ""], "slices": [None]},
        {"input": None, "target": None, "contexts": None, "slices": None}])
    rows, problems = make_rows(read_records(path), "row")
    made, = rows.values()
    assert (made.text, made.target, made.contexts, made.slices) == ("raw", {"a": [1, None], "b": {"c": None}}, ("one",), ())
    assert problems[0].place == f"{path}, row 2"


def test_a_binary_column_is_refused_when_it_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"text": "a", "label": "b", "image": {"bytes": b"\xff", "path": "a.png"}}])
    records = read_records(path)
    assert row_of(records, Columns(("text",), ("label",))).target == "b"
    assert guess_columns(records, "a.parquet").notes[1:] == (
        "asked: column text; wanted: column label (guessed; --input and --target say otherwise)", "not used: column image")
    for columns in (None, Columns(("image",), ("label",))):
        with pytest.raises(UserError, match="the column 'image' has bytes that are not text") as error:
            row_of(records, columns)
        assert error.value.place == f"{path}, row 1"
    with pytest.raises(UserError, match="cannot tell which column is the answer"):
        answer_columns(read_records(write(path, [{"input": "a", "answer": b"\xff"}])), need_input=True)


def test_a_very_long_line(tmp_path: Path) -> None:
    for ending in ("csv", "jsonl"):
        path = write(tmp_path / f"long.{ending}", [{"input": "x" * 2_000_000, "target": "y"}])
        assert len(read_records(path)[0].fields["input"]) == 2_000_000


@pytest.mark.parametrize(("name", "content", "message", "line"), [
    ("a.jsonl", '{"input": 1}\n{"input": \n', r"not valid JSON: Expecting value \(column 11\)", ":2"),
    ("a.json", '[{"a": 1},\n  oops]', r"not valid JSON: Expecting value \(column 3\)", ":2"),
    ("a.jsonl", '\n[1]\n', "a list, not an object", ":2"),
    ("a.jsonl", '{"input": NaN}\n', "NaN is not JSON", ":1"),
    ("a.jsonl", '{"input": 1e999}\n', "infinite", ":1"),
    ("a.jsonl", '{"a": 1, "a": 2}\n', "given twice", ":1"),
    ("a.jsonl", '{"input": "\\ud83d"}\n', "surrogate", ":1"),
    ("a.jsonl", "", "no rows", ""),
    ("a.jsonl", b"ok\n\xff\n", "not UTF-8", ":2"),
    ("a.csv", "", "no rows", ""),
    ("a.csv", "text,label\n", "no rows", ""),
    ("a.csv", "text,label\n\0\0,a\n", "a NUL character", ":2"),
    ("a.csv", "\n\ntext,text\na,b\n", "is there twice", ":3"),
    ("a.csv", "text,label\na\nb,c\nd,e,f\n", r"1 cells.*\(and 1 more", ":2"),
    ("a.jsonl", "[" * 100_000, "nested too deeply", ":1"),
    ("a.jsonl", '{"n": ' + "1" * 5000 + "}", "not valid JSON", ":1"),
    ("a.json", '[{"a": NaN}]', "NaN is not JSON", ""),
    ("a.csv", 'text,label\na,b\n"x\ny",z,w\n', "3 cells, but the header has 2", ":3"),
    ("a.csv", 'text,label\na,b\nc,"d\n', "not a valid table", ":3"),
    ("a.json", "{}", "promptfoo", ""),
    ("a.json", "[1]", "not an object", ", item 1"),
    ("a.jsonl", '{"a": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply", ":1"),
    ("a.yaml", "a: [\n", "not valid YAML", ":2"),
    ("a.yaml", "[" * 5000, "not valid YAML: nested too deeply", ""),
    ("a.yaml", "- &x {input: a, target: *x}\n", "nested too deeply", ", item 1"),
    ("a.parquet", "no", "not a Parquet file", ""),
    ("a.docx", "x", "cannot read .docx", ""),
])
def test_broken_files_say_where(name: str, content: str | bytes, message: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_records(path)
    assert error.value.place == f"{path}{line}"
    assert error.value.remedy


def test_json_lines_under_the_name_of_json_are_told_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"input": "a", "target": "b"}\n{"input": "c", "target": "d"}\n')
    with pytest.raises(UserError, match="not valid JSON: Extra data") as error:
        read_records(tmp_path / "a.json")
    assert error.value.place == f"{tmp_path / 'a.json'}:2" and "call the file .jsonl" in error.value.remedy


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path / "no.parquet"):
        with pytest.raises(UserError, match="no such file"):
            read_records(path)


def test_empty_cells_and_nan_are_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, [{"input": "a", "target": 1.5}, {"input": "b", "target": float("nan")}])
    rows, problems = make_rows(read_records(path), "row", need_target=True)
    assert [one.target for one in rows.values()] == ["1.5"]
    assert "no target" in problems[0].message and problems[0].place == f"{path}, row 2"


def test_numbers_and_records_as_targets() -> None:
    assert row({"input": "a", "target": 14.0}).target == "14"
    assert row({"input": "a", "target": 0.72}).target == "0.72"
    assert row({"input": "a", "target": True}).target == "true"
    assert row({"input": "a", "target": 0}).target == "0"
    assert row({"input": "a", "target": {"b": 1}}).target == {"b": 1}
    assert row({"input": 5, "target": "x"}).text == "5"


def test_openai_chat_rows_with_weights_and_tools() -> None:
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}}
    made = row({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello", "weight": 0},
        {"role": "user", "content": "Find x"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "found"},
        {"role": "assistant", "content": "It is x.", "weight": 1},
        {"role": "user", "content": "thanks"},
        {"role": "assistant", "content": "bye", "weight": 0}], "tools": tools, "parallel_tool_calls": False}, strict=True)
    assert made.target == "It is x." and made.tools == tuple(tools) and made.metadata == {"parallel_tool_calls": False}
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "user", "assistant", "tool"]
    assert made.messages[2] == Message("assistant", "Hello", 0.0)
    assert made.messages[4].tool_calls == (call,) and made.messages[5].tool_call_id == "c1"
    called = row({"messages": [{"role": "user", "content": "Find x"}, {"role": "assistant", "tool_calls": [call]}]})
    assert called.target == {"name": "find", "arguments": {"q": "x"}}
    assert row(json.loads(row_line(made, with_id=True)), strict=True) == made


@pytest.mark.parametrize("arguments", [{"q": "x"}, '{"q": "x"}'])
def test_a_bare_tool_call_is_the_call_that_it_is_when_wrapped(arguments: Any) -> None:
    bare = {"name": "find", "arguments": arguments}
    asked = {"role": "user", "content": "Find x"}
    called, wrapped = (row({"messages": [asked, {"role": "assistant", "tool_calls": [call]}]})
                       for call in (bare, {"type": "function", "function": bare}))
    assert called.target == wrapped.target == {"name": "find", "arguments": {"q": "x"}}
    twice = row({"messages": [asked, {"role": "assistant", "tool_calls": [bare, {"name": "stop", "arguments": None}]}]})
    assert twice.target == {"tool_calls": [called.target, {"name": "stop", "arguments": {}}]}


@pytest.mark.parametrize(("messages", "problem"), [
    ([], "not a list"), ("hi", "not valid JSON"), ([{"role": "robot", "content": "x"}], "role 'robot'"),
    ([{"role": "assistant", "content": "x"}], "nobody asks"), ([{"role": "system", "content": "x"}], "nobody asks"),
    ([{"role": "user", "content": " "}], "message 1 is empty"),
    ([{"role": "user", "content": "x", "weight": 0}], "weight"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0.5}], "weight"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}], "every assistant message"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "not text"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": "find"}], "no function name"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{"id": 1}]}], "no function name"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": "{"}}]}], "not a JSON object"),
    ([{"role": "user", "content": [{"type": "text"}]}], "message 1 is empty"),
    ([{"role": "user", "content": "x", "audio": {"id": 1}}], "audio"),
    ([{"role": "user", "content": "x", "name": "ann"}], "'name', which is not understood"),
    ("[" * 100_000, "nested too deeply"),
    ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "Let me look.", "tool_calls": [
        {"function": {"name": "f", "arguments": "{}"}}]}], "text beside its tool calls"),
])
def test_conversations_nothing_may_be_lost_from(messages: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        row({"messages": messages})
    assert error.value.place == "f:1" and error.value.remedy


def test_what_teams_already_have() -> None:
    ragas = row({"user_input": "q", "retrieved_contexts": "['one', 'two']", "response": "said", "reference": "gold"})
    assert (ragas.text, ragas.contexts, ragas.answer, ragas.target) == ("q", ("one", "two"), "said", "gold")
    assert row({"input": "q", "contexts": "[" * 100_000}).contexts == ("[" * 100_000,)
    old = row({"question": "q", "contexts": ["one"], "answer": "said", "ground_truth": "gold", "topic": "t"})
    assert (old.contexts, old.answer, old.target, old.metadata) == (("one",), "said", "gold", {"topic": "t"})
    table = row({"user_input": "q", "reference": "gold", "topic": "t", "metadata": '{"by": "ann"}'})
    assert table.metadata == {"topic": "t", "by": "ann"}
    log = row({"request": {"messages": [{"role": "user", "content": "q"}], "model": "m"},
               "response": {"choices": [{"message": {"role": "assistant", "content": "said"}}]}})
    assert (log.text, log.answer, log.target) == ("q", "said", None)
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    log = row({"request": {"messages": [{"role": "user", "content": "q"}]},
               "response": {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}})
    assert log.answer == '{"name": "find", "arguments": {}}'
    conversation = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "said"}]
    chat = row({"messages": conversation, "target": "gold"})
    assert (chat.answer, chat.target) == ("said", "gold")
    pair = row({"by": "ann", "input": {"messages": [{"role": "user", "content": "q"}], "parallel_tool_calls": True},
                "preferred_output": [{"role": "assistant", "content": "good"}],
                "non_preferred_output": [{"role": "assistant", "content": "bad"}]})
    assert (pair.text, pair.target, pair.rejected) == ("q", "good", "bad")
    assert pair.metadata == {"by": "ann", "parallel_tool_calls": True}
    trl = row({"prompt": "q", "chosen": [{"role": "assistant", "content": "good"}], "rejected": "bad"})
    assert (trl.target, trl.rejected) == ("good", "bad")
    alpaca = row({"instruction": "Add.", "input": "", "output": "3"})
    assert (alpaca.text, alpaca.target) == ("Add.", "3")


def test_strict_rows_name_the_nearest_field() -> None:
    with pytest.raises(UserError, match="no field 'taget'") as error:
        row({"input": "a", "taget": "b"}, strict=True)
    assert "'target'" in error.value.remedy
    with pytest.raises(UserError, match="no field 'taget'"):
        row({"input": "a", "taget": None}, strict=True)


def test_columns_of_a_table() -> None:
    columns = Columns(("premise", "hypothesis"), ("label", "why"))
    made = row({"premise": "a", "hypothesis": "b", "label": "yes", "why": None, "noise": 1, "id": 7}, columns=columns)
    assert made.text == "premise: a\n\nhypothesis: b"
    assert made.target == {"label": "yes", "why": None} and made.id == "7"
    with pytest.raises(UserError, match="no column 'premise'") as error:
        row({"premisse": "a"}, columns=columns)
    assert "'premisse'" in error.value.remedy


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda value: value.strip())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.builds(Row, id=text, messages=st.lists(text, min_size=1, max_size=3).map(
    lambda texts: tuple(Message("user", one) for one in texts)),
    target=st.one_of(text, st.dictionaries(text, st.one_of(st.none(), text, st.integers(), st.booleans()), min_size=1)),
    answer=st.one_of(st.none(), st.just(""), text), contexts=st.lists(text).map(tuple), slices=st.lists(text).map(tuple),
    metadata=st.dictionaries(text, text)))
def test_any_row_survives_writing_and_reading(tmp_path: Path, made: Row) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row_line(made, with_id=True) + "\n", encoding="utf-8", newline="")
    rows, problems = make_rows(read_records(path), "row", strict=True)
    assert not problems and list(rows.values()) == [made]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(text, st.one_of(text, st.integers(-2**60, 2**60), st.booleans(), st.lists(text),
                                       st.dictionaries(text, st.one_of(text, st.dictionaries(text, text))))))
def test_any_table_survives_toml(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml(table)) == table


@given(st.text('"\n\\ab\x7f\r'))
def test_quotes_and_newlines_survive_toml(value: str) -> None:
    assert tomllib.loads(toml({"text": value})) == {"text": value}
