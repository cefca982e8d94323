"""promptfoo's configurations and tables of tests as rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_row_formats import row_of

from posttrain.tasks.columns import guess_columns
from posttrain.tasks.readers import read_records
from posttrain.tasks.records import Record
from posttrain.tasks.rows import make_rows
from posttrain.types import Message, UserError

PROMPTFOO = """
prompts: ["Translate {{text}} to {{ language }}"]
defaultTest:
  vars: {language: French}
tests:
  - vars: {text: hello}
    assert: [{type: equals, value: bonjour}]
  - vars: {text: cat, language: German}
    assert: [{type: icontains, value: katze}, {type: not-contains, value: sorry}]
"""


def test_promptfoo(tmp_path: Path) -> None:
    path = tmp_path / "promptfooconfig.yaml"
    path.write_text(PROMPTFOO)
    rows, problems = make_rows(read_records(path), "row", need_target=True)
    assert not problems
    first, second = rows.values()
    assert (first.text, first.target) == ("Translate hello to French", "bonjour")
    assert second.text == "Translate cat to German" and second.target is None
    assert [check["type"] for check in second.metadata["assert"]] == ["icontains", "not-contains"]
    path.write_text(PROMPTFOO.replace("katze", "'{{text}}: Katze'"))
    rows, _ = make_rows(read_records(path), "row")
    assert list(rows.values())[1].metadata["assert"][0]["value"] == "cat: Katze"
    for old, new, message in (("text}}", "text | upper}}", "nothing to put"), ("{{text}}", "{% if x %}", "nothing to put"),
                              ("German", "[German, Dutch]", "several values"), ("katze", "", "has the value")):
        path.write_text(PROMPTFOO.replace(old, new, 1))
        _, problems = make_rows(read_records(path), "row")
        assert message in problems[-1].message and problems[-1].remedy
    path.write_text(PROMPTFOO.replace("icontains", "llm-rubric"))
    _, problems = make_rows(read_records(path), "row")
    assert "llm-rubric" in problems[0].message


def test_promptfoo_variables_are_written_as_their_file_does(tmp_path: Path) -> None:
    path = tmp_path / "promptfooconfig.yaml"
    path.write_text("""
prompts: ["{{sure}} {{none}} {{half}} {{day}}"]
tests:
  - {vars: {sure: true, none: null, half: 0.5, day: 2026-01-02}, assert: [{type: equals, value: x}]}
""")
    assert row_of(read_records(path)).text == 'true null 0.5 2026-01-02'


def test_promptfoo_tests_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("prompts: [x]\ntests: file://tests.csv\n")
    with pytest.raises(UserError, match="the tests are in another file") as error:
        read_records(tmp_path / "a.yaml")
    assert "tests.csv" in error.value.remedy and error.value.place == str(tmp_path / "a.yaml")


PROMPTFOO_FILES = """
prompts: {prompts}
defaultTest: file://default.yaml
tests:
  - vars: {vars}
    assert: {assertions}
"""


def promptfoo(folder: Path, prompts: str = "file://prompts/ask.txt", vars: str = "file://vars.yaml",
              assertions: str = "file://checks.yaml") -> Path:
    """A configuration with what it names beside it."""
    for name, content in {"prompts/ask.txt": "Translate {{text}} to {{language}}\n", "default.yaml": "vars: {language: French}",
                          "vars.yaml": "text: file://body.txt\n", "body.txt": "hello\nyou\n", "word.txt": "bonjour\n",
                          "checks.yaml": "- {type: contains, value: 'file://word.txt'}", "data.json": '{"b":  1}',
                          "two.txt": "First {{text}}\n---\nSecond {{text}}\n", "endless.yaml": "&x [*x]", "broken.json": "{",
                          "chat.json": '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{text}}"}]',
                          "code.py": "def get_var(): ..."}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    path = folder / "promptfooconfig.yaml"
    path.write_text(PROMPTFOO_FILES.format(prompts=prompts, vars=vars, assertions=assertions))
    return path


def test_promptfoo_reads_the_files_that_it_names(tmp_path: Path) -> None:
    made = row_of(read_records(promptfoo(tmp_path)))
    assert made.text == "Translate hello\nyou to French"
    assert made.metadata["assert"] == [{"type": "contains", "value": "bonjour"}]
    inline = "[{type: equals, value: 'file://word.txt'}]"
    for prompts in ("'{{text}} in {{language}}'", "[{raw: '{{text}} in {{language}}', label: x}]"):
        made = row_of(read_records(promptfoo(tmp_path, prompts, "{text: 'file://data.json'}", inline)))
        assert (made.text, made.target) == ('{"b": 1} in French', "bonjour")
    made = row_of(read_records(promptfoo(tmp_path, "[file://chat.json]")))
    assert made.messages == (Message("system", "Be brief."), Message("user", "hello\nyou"))
    tests = tmp_path / "tests.yaml"
    tests.write_text("- {vars: {text: 'file://body.txt'}, assert: 'file://checks.yaml'}")
    assert row_of(read_records(tests)).text == "hello\nyou"


@pytest.mark.parametrize(("named", "problem", "place"), [
    ({"vars": "file://none.yaml"}, "no such file", "none.yaml"),
    ({"vars": "{text: 'file://code.py'}"}, "file://code.py is no file that can be read", "promptfooconfig.yaml, item 1"),
    ({"vars": "{text: 'file://*.txt'}"}, "no such file", "*.txt"), ({"vars": "file://broken.json"}, "not valid JSON", "broken.json:1"),
    ({"vars": "file://body.txt"}, "vars is a str, not names", "promptfooconfig.yaml, item 1"),
    ({"vars": "vars.yaml"}, "vars is a str, not names", "promptfooconfig.yaml, item 1"),
    ({"vars": "{text: 'file://endless.yaml'}"}, "nested too deeply", "endless.yaml"),
    ({"assertions": "file://data.json"}, "assert is not a list", "promptfooconfig.yaml, item 1"),
    ({"assertions": "5"}, "assert is not a list", "promptfooconfig.yaml, item 1"),
    ({"prompts": "file://make.js"}, "is no file that can be read", "promptfooconfig.yaml"),
    ({"prompts": "{ask.txt: label}"}, "neither a text nor messages", "promptfooconfig.yaml"),
    ({"prompts": "[5]"}, "neither a text nor messages", "promptfooconfig.yaml"),
    ({"prompts": "file://data.json"}, "neither a text nor messages", "promptfooconfig.yaml"),
])
def test_promptfoo_files_that_cannot_be_read(named: dict[str, str], problem: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem) as error:
        read_records(promptfoo(tmp_path, **named))
    assert error.value.place == str(tmp_path / place) and error.value.remedy


@pytest.mark.parametrize(("prompts", "asked", "note"), [
    ("['To {{language}}: {{text}}', 'Other {{text}}', file://code.py]", "To French: hello\nyou",
     "prompts: the first of 3 is asked, 'To {{language}}: {{text}}'"),
    ("file://two.txt", "First hello\nyou", "prompts: the first of 2 is asked, 'file://two.txt'"),
    ("ask.txt", "language: French\ntext: hello\nyou", "prompts: 'ask.txt' has no {{variable}}, so the variables alone are asked"),
    ("[]", "language: French\ntext: hello\nyou", None)])
def test_promptfoo_says_which_prompt_is_asked(prompts: str, asked: str, note: str | None, tmp_path: Path) -> None:
    records = read_records(promptfoo(tmp_path, prompts))
    assert row_of(records).text == asked and not row_of(records).metadata.keys() - {"assert"}
    assert guess_columns(records, "a.yaml").notes == ("1 rows read from a.yaml (promptfoo tests)", *([note] if note else []))


def test_a_file_named_in_a_table_of_tests_is_refused(tmp_path: Path) -> None:
    for name, content in {"a.csv": "text,__expected\nfile://body.txt,x\n", "b.csv": "text,__expected\nx,contains: file://x.txt\n",
                          "a.jsonl": '{"vars": {"text": "file://x.txt"}, "assert": [{"type": "equals", "value": "x"}]}'}.items():
        (tmp_path / name).write_text(content)
        _, problems = make_rows(read_records(tmp_path / name), "row")
        assert "is not read" in problems[0].message and problems[0].place.startswith(str(tmp_path / name))
    assert "assert is not a list" in make_rows([Record("f:1", {"vars": {"a": "b"}, "assert": 5})], "row")[1][0].message


def test_a_table_of_promptfoo_tests(tmp_path: Path) -> None:
    path = tmp_path / "tests.csv"
    path.write_text("""text,tone,slices,__expected1,__expected2,__description
hello,,short,bonjour,,greets
cat,dry,short,icontains: katze,"not-contains-any: sorry, pardon",
dog,,short,levenshtein(2): Hund,is-json,
""")
    rows, problems = make_rows(read_records(path), "row", need_target=True)
    first, second, third = rows.values()
    assert not problems and (first.text, first.target, first.slices) == ("text: hello\ntone: ", "bonjour", ("short",))
    assert second.text == "text: cat\ntone: dry" and second.target is None
    assert second.metadata["assert"] == [{"type": "icontains", "value": "katze"},
                                         {"type": "not-contains-any", "value": "sorry, pardon"}]
    assert third.metadata["assert"][0] == {"type": "levenshtein", "value": "Hund", "threshold": 2.0}
    for column, cell, message in (("__expected", "llm-rubric: nice", "llm-rubric"), ("__expected", "similar(0.8): x", "similar"),
                                  ("__expected,__prefix", "x,Say: ", "'__prefix', which is not understood")):
        path.write_text(f"text,{column}\nhello,{cell}\n")
        _, problems = make_rows(read_records(path), "row")
        assert message in problems[0].message and problems[0].place == f"{path}:2"
