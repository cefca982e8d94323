"""`init`: from somebody's file to a folder, with guesses a person would make and say."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from posttrain import tasks
from posttrain.tasks.near_duplicates import SHINGLE, SIMILARITY, groups, near_pairs, normal
from posttrain.tasks.splitting import SHARES, assign
from posttrain.types import RolloutError, Task, UserError, target_text

WORDS = ["card", "refund", "broken", "late", "invoice", "printer", "login", "update", "cancel", "where", "again",
         "today", "battery", "parcel", "amount", "button", "screen", "account", "branch", "driver"]


def sentences(count: int, seed: int = 0) -> list[str]:
    random_words = random.Random(seed)
    return [" ".join(random_words.sample(WORDS, 6)) for _ in range(count)]


def csv_file(path: Path, header: str, lines: list[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def gold_passes(task: Task) -> bool:
    rows = [row for split in task.splits.values() for row in split]
    return all(asyncio.run(task.grader.grade(row, target_text(row.target or ""))).passed for row in rows)


def test_labels_become_a_choice(tmp_path: Path) -> None:
    lines = [f"{text},{'Yes' if n % 4 else 'No'},{n}" for n, text in enumerate(sentences(100))]
    task = tasks.create(csv_file(tmp_path / "a.csv", "text,category,noise", lines), folder=tmp_path / "task")
    assert task.output.labels == ("No", "Yes") and gold_passes(task)
    assert all(label in task.instructions for label in task.output.labels) and "category" in task.instructions
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 60, "dev": 15, "test": 25}
    for split, rows in task.splits.items():
        assert abs(Counter(row.target for row in rows)["No"] - 25 * SHARES[split]) < 1
    notes = "\n".join(task.notes)
    for said in ("column text", "column category", "noise", "2 labels", "60 train"):
        assert said in notes
    again = tasks.load(tmp_path / "task")
    assert again.hash == task.hash and "noise" in (tmp_path / "task" / "README.md").read_text()
    with pytest.raises(UserError, match="task here already"):
        tasks.create(tmp_path / "a.csv", folder=tmp_path / "task")


def test_the_same_file_and_seed_make_the_same_task(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "a.csv", "text,label", [f"{text},{n % 2}" for n, text in enumerate(sentences(50))])
    hashes = [tasks.create(file, folder=tmp_path / str(n), seed=seed).hash for n, seed in enumerate((0, 0, 1))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_several_targets_become_a_record(tmp_path: Path) -> None:
    lines = [f"{n},{text},{'ab'[n % 2]},{['low', 'high', ''][n % 3]},{f'R-{n}' if n % 5 else ''}"
             for n, text in enumerate(sentences(60))]
    task = tasks.create(csv_file(tmp_path / "a.csv", "id,message,queue,urgency,reference", lines),
                        folder=tmp_path / "task", target=["queue", "urgency", "reference"])
    assert task.output.schema == {
        "type": "object", "additionalProperties": False, "required": ["queue", "urgency", "reference"],
        "properties": {"queue": {"enum": ["a", "b"]}, "reference": {"type": ["string", "null"]},
                       "urgency": {"anyOf": [{"enum": ["high", "low"]}, {"type": "null"}]}}}
    assert gold_passes(task) and task.rows("train")[0].id.isdigit()
    assert '- queue: one of "a", "b"' in task.instructions and "- reference: text or null" in task.instructions
    queues = [row.target["queue"] for row in task.rows("test") if isinstance(row.target, dict)]
    assert abs(queues.count("a") - queues.count("b")) <= 2


@pytest.mark.parametrize(("targets", "grader"), [
    ([str(n * 7) for n in range(40)], "number"), ([str(n % 3) for n in range(60)], "choice"),
    ([str(n % 2 + 4) for n in range(60)], "number"), ([f"Name{n} X" for n in range(40)], "exact"),
    ([" ".join(sentences(2, seed=n)) for n in range(40)], "similarity"),
    ([json.dumps({"a": n, "b": "xy"[n % 2]}) for n in range(40)], "json"), ([True, False] * 20, "choice"),
    ([{"a": n % 2 == 0} for n in range(40)], "json"), ([n / 8 for n in range(40)], "number"),
])
def test_the_grader_fits_the_targets(targets: list[Any], grader: str, tmp_path: Path) -> None:
    asked = sentences(len(targets))
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"input": text, "target": target}) + "\n"
                            for text, target in zip(asked, targets, strict=True)))
    task = tasks.create(file, folder=tmp_path / "task")
    assert type(task.grader).__module__ == f"posttrain.graders.{grader}" and gold_passes(task)
    assert task.instructions and grader in "\n".join(task.notes)
    assert not [finding for finding in tasks.check(tmp_path / "task") if finding.level == "error"]


def test_a_label_seen_once_is_told_and_changes_no_grader(tmp_path: Path) -> None:
    lines = [f"{text},{['billing', 'shipping', 'other'][n % 3]}" for n, text in enumerate(sentences(60))]
    file = csv_file(tmp_path / "a.csv", "text,queue", [*lines, "where is it,shiping"])
    task = tasks.create(file, folder=tmp_path / "task")
    assert task.output.labels == ("billing", "other", "shiping", "shipping") and gold_passes(task)
    assert f"labels that one row has: 'shiping' ({file}:62; did you mean 'shipping'?)" in task.notes
    texts = [f"{text},{'none' if n % 5 else f'R-{n}'}" for n, text in enumerate(sentences(60))]
    task = tasks.create(csv_file(tmp_path / "b.csv", "text,reference", texts), folder=tmp_path / "free")
    assert not task.output.labels, "one value that repeats, beside many that do not, is no closed set"


def test_a_grader_may_be_chosen(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "a.csv", "question,answer", [f"{text},{n % 2}" for n, text in enumerate(sentences(40))])
    assert tasks.create(file, folder=tmp_path / "n", grader="number").output.labels == ()
    assert tasks.create(file, folder=tmp_path / "c", grader="contains").grader
    with pytest.raises(UserError, match="no grader called"):
        tasks.create(file, folder=tmp_path / "x", grader="nonsense")
    assert not (tmp_path / "x" / "task.toml").exists()
    words = csv_file(tmp_path / "b.csv", "question,answer", [f"{text},w{n}" for n, text in enumerate(sentences(40))])
    with pytest.raises(UserError, match="is not a number"):
        tasks.create(words, folder=tmp_path / "y", grader="number")


@pytest.mark.parametrize(("header", "asked", "wanted"), [
    ("text,label", "text", "label"), ("label,sentence", "sentence", "label"), ("Question,Answer", "Question", "Answer"),
    ("words,category", "words", "category"), ("id,utterance,intent", "utterance", "intent"),
    ("content,kind", "content", "kind"), ("left,right", "left", "right")])
def test_columns_are_guessed(header: str, asked: str, wanted: str, tmp_path: Path) -> None:
    names = header.split(",")
    lines = [",".join({asked: text, wanted: "ab"[n % 2], "id": str(n)}[name] for name in names)
             for n, text in enumerate(sentences(40))]
    task = tasks.create(csv_file(tmp_path / "a.csv", header, lines), folder=tmp_path / "task")
    assert f"asked: column {asked}; wanted: column {wanted}" in "\n".join(task.notes)


def test_what_is_taken_without_being_named_is_told(tmp_path: Path) -> None:
    said = "taken as what your running system said; it is compared as `yours`, unless --answers is given"
    lines = [f"{n},{text},{'ab'[n % 2]},because {n},{'xy'[n % 2]},[]" for n, text in enumerate(sentences(40))]
    file = csv_file(tmp_path / "faq.csv", "id,question,category,answer,slices,contexts", lines)
    notes = tasks.create(file, folder=tmp_path / "task").notes
    assert notes[1].startswith("asked: column question; wanted: column category")
    assert notes[2:5] == (
        "id: taken as the rows' own ids (rename it if it is something else)",
        "slices: taken as groups that reports show apart (rename it if it is something else)",
        f"answer: {said} (say --target answer if it is what is wanted, rename it if it is something else)")
    otherwise = tasks.create(file, folder=tmp_path / "otherwise", target=["answer"])
    assert otherwise.rows("train")[0].answer is None and not any("running system" in note for note in otherwise.notes)
    ragas = [{"user_input": text, "reference": "ab"[n % 2], "response": "", "retrieved_contexts": ["one"]}
             for n, text in enumerate(sentences(40))]
    notes = tasks.create(log(tmp_path / "ragas.jsonl", ragas), folder=tmp_path / "ragas").notes
    assert notes[1].startswith("retrieved_contexts: taken as passages") and notes[2].startswith(f"response: {said} (say")
    calls = [{"request": {"messages": [{"role": "user", "content": text}]}, "target": "ab"[n % 2],
              "response": {"choices": [{"message": {"content": "a"}}]}} for n, text in enumerate(sentences(40))]
    assert tasks.create(log(tmp_path / "log.jsonl", calls), folder=tmp_path / "log").notes[1] == f"response: {said}"
    chats = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}],
              "target": "ab"[n % 2]} for n, text in enumerate(sentences(40))]
    notes = tasks.create(log(tmp_path / "chat.jsonl", chats), folder=tmp_path / "chat").notes
    assert notes[1] == f"the last assistant message: {said}"


def test_a_full_column_is_likelier_than_one_with_gaps(tmp_path: Path) -> None:
    lines = [f"{text},{'ab'[n % 2]},{'' if n % 2 else n}" for n, text in enumerate(sentences(40))]
    task = tasks.create(csv_file(tmp_path / "a.csv", "message,queue,reference", lines), folder=tmp_path / "task")
    assert task.output.labels == ("a", "b") and "not used: column reference" in task.notes


@pytest.mark.parametrize("header", ["where is it,refund", "please tell me where it is,queue"])
def test_a_file_without_a_header_is_asked_about(header: str, tmp_path: Path) -> None:
    lines = [f"{text},{['refund', 'other'][n % 2]}" for n, text in enumerate(sentences(40))]
    task = tasks.create(csv_file(tmp_path / "a.csv", header, lines), folder=tmp_path / "task")
    assert "is there a header?" in "\n".join(task.notes)
    task = tasks.create(csv_file(tmp_path / "b.csv", "what they wrote,queue", lines), folder=tmp_path / "named")
    assert "is there a header?" not in "\n".join(task.notes)


def test_texts_and_tool_calls_in_one_file_are_told(tmp_path: Path) -> None:
    lines = [{"input": text, "target": "I cannot." if n % 2 else {"name": "find", "arguments": {}}}
             for n, text in enumerate(sentences(40))]
    task = tasks.create(log(tmp_path / "a.jsonl", lines), folder=tmp_path / "task")
    assert "20 targets are records or tool calls, 20 are texts" in "\n".join(task.notes)


def test_columns_that_cannot_be_guessed_are_asked_for(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "a.csv", "one,two,three", [f"{a},{b},{c}" for a, b, c in
                    zip(sentences(30), sentences(30, 1), sentences(30, 2), strict=True)])
    with pytest.raises(UserError, match="cannot tell") as error:
        tasks.create(file, folder=tmp_path / "task")
    assert "one, two, three" in error.value.remedy
    with pytest.raises(UserError, match="no column 'tow'"):
        tasks.create(file, folder=tmp_path / "task", input="one", target=["tow"])
    assert tasks.create(file, folder=tmp_path / "task", input="one,three", target=["two"]).rows("train")[0].text \
        .startswith("one: ")


def test_a_column_is_not_its_own_answer(tmp_path: Path) -> None:
    file = csv_file(tmp_path / "a.csv", "text,label", [f"{text},{n % 2}" for n, text in enumerate(sentences(40))])
    with pytest.raises(UserError, match="both asked and wanted"):
        tasks.create(file, folder=tmp_path / "task", input="text", target=["text"])
    assert tasks.create(file, folder=tmp_path / "task", target=["label", "label"]).output.labels == ("0", "1")


def test_a_test_file_is_the_test_split(tmp_path: Path) -> None:
    train = csv_file(tmp_path / "a.csv", "text,label", [f"{text},{n % 2}" for n, text in enumerate(sentences(50))])
    other = [*sentences(9, seed=5), sentences(50)[3].upper() + "!"]
    test = csv_file(tmp_path / "b.tsv", "text\tlabel", [f"{text}\t{n % 2}" for n, text in enumerate(other)])
    task = tasks.create(train, test=test, folder=tmp_path / "task")
    assert [row.text for row in task.rows("test")] == other
    assert (len(task.rows("train")), len(task.rows("dev"))) == (40, 10)
    assert "near-duplicates of rows in the other file: 1 of 10" in "\n".join(task.notes)


def test_a_shared_system_prompt_is_the_instructions(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": [
        {"role": "system", "content": "Say where."}, {"role": "user", "content": text},
        {"role": "assistant", "content": ["here", "there"][n % 2]}]}) + "\n" for n, text in enumerate(sentences(40))))
    task = tasks.create(file, folder=tmp_path / "task")
    assert task.instructions == "Say where." and task.output.labels == ("here", "there")
    assert all(message.role != "system" for row in task.rows("train") for message in row.messages)


def test_promptfoo_tests_keep_their_assertions(tmp_path: Path) -> None:
    file = tmp_path / "tests.json"
    file.write_text(json.dumps([{"vars": {"q": text}, "assert": [{"type": "contains", "value": text[:4]}]}
                                for text in sentences(20)]))
    task = tasks.create(file, folder=tmp_path / "task")
    row = task.rows("test")[0]
    assert asyncio.run(task.grader.grade(row, row.text)).passed and "assertions" in "\n".join(task.notes)
    assert not asyncio.run(task.grader.grade(row, "")).passed


def log(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_log_of_calls_asks_for_what_was_answered(tmp_path: Path) -> None:
    lines = [{"request": {"messages": [{"role": "user", "content": text}]},
              "response": {"choices": [{"message": {"role": "assistant", "content": ["here", "there"][n % 2]}}]}}
             for n, text in enumerate(sentences(40))]
    task = tasks.create(log(tmp_path / "log.jsonl", lines), folder=tmp_path / "task")
    assert task.output.labels == ("here", "there") and gold_passes(task)
    assert "wanted: what was answered in the log" in "\n".join(task.notes)
    assert all(row.answer is None for row in task.rows("test")), "nothing is compared with itself"
    lines[0]["target"] = lines[1]["target"] = lines[2]["target"] = lines[3]["target"] = lines[4]["target"] = "gold"
    task = tasks.create(log(tmp_path / "log.jsonl", lines), folder=tmp_path / "labelled")
    assert {row.target for rows in task.splits.values() for row in rows} == {"gold"} and "35 of 40" in "\n".join(task.notes)


def test_a_conversation_that_goes_on_asks_for_its_last_assistant_message(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ["here", "there"][n % 2]},
                           *[{"role": "user", "content": "thanks"}] * (n < 10)]} for n, text in enumerate(sentences(40))]
    task = tasks.create(log(tmp_path / "log.jsonl", lines), folder=tmp_path / "task")
    assert sum(map(len, task.splits.values())) == 40 and task.output.labels == ("here", "there")
    assert all(row.text != "thanks" for row in task.rows("train")) and "10 conversations go on" in "\n".join(task.notes)


def test_fields_beside_a_known_shape_are_kept_and_told(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ["here", "there"][n % 2]}],
              "customer_tier": "gold", "ticket": n or None} for n, text in enumerate(sentences(40))]
    task = tasks.create(log(tmp_path / "log.jsonl", lines), folder=tmp_path / "task")
    assert "kept as metadata, which only a python grader sees: customer_tier, ticket" in task.notes
    assert all(row.metadata["customer_tier"] == "gold" for row in task.rows("train"))


def test_a_log_without_answers_says_what_to_do(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": text}]} for text in sentences(4)]
    with pytest.raises(UserError, match="no row has both an input and a wanted answer") as error:
        tasks.create(log(tmp_path / "log.jsonl", lines), folder=tmp_path / "task")
    assert error.value.place == f"{tmp_path / 'log.jsonl'}:1" and "assistant's message" in error.value.remedy


@pytest.mark.parametrize("labels", [["yes ", "yes", "no"], ["*", "**", "***"], ["café", "naïve", "日本"], ["A.", "A", "b"]])
def test_labels_as_people_write_them(labels: list[str], tmp_path: Path) -> None:
    lines = [f"{text},{labels[n % len(labels)]}" for n, text in enumerate(sentences(60))]
    task = tasks.create(csv_file(tmp_path / "a.csv", "text,label", lines), folder=tmp_path / "task")
    assert set(task.output.labels) == {label.strip() for label in labels} and gold_passes(task)
    assert not [finding for finding in tasks.check(task) if finding.level == "error"]


def test_rows_that_are_all_the_same_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="near-duplicates stay together"):
        tasks.create(csv_file(tmp_path / "a.csv", "text,label", ["a,b"] * 50), folder=tmp_path / "task")


def test_few_rows_and_missing_labels(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 row cannot be split") as error:
        tasks.create(csv_file(tmp_path / "one.csv", "text,label", ["a,b"]), folder=tmp_path / "one")
    assert error.value.place == str(tmp_path / "one.csv") and not (tmp_path / "one").exists()
    lines = [f"{text},{'' if n < 5 else n % 2}" for n, text in enumerate(sentences(45))]
    task = tasks.create(csv_file(tmp_path / "a.csv", "text,label", lines), folder=tmp_path / "task")
    assert sum(map(len, task.splits.values())) == 40
    assert "5 of 45 rows left out" in "\n".join(task.notes) and f"{tmp_path / 'a.csv'}:2" in "\n".join(task.notes)
    repeated = [f"1,{text},{n % 2}" for n, text in enumerate(sentences(40))]
    task = tasks.create(csv_file(tmp_path / "b.csv", "id,text,label", repeated), folder=tmp_path / "ids")
    assert "numbered anew" in "\n".join(task.notes)


# --- near-duplicates and splits -----------------------------------------------------------------------------


def jaccard(left: str, right: str) -> float:
    sets = [{text[start:start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))} for text in (left, right)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


BASE = "abcdefghijklmnopqrstuvwxyz" * 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(
    st.text("abc ", min_size=SHINGLE, max_size=14),
    st.tuples(st.integers(0, 6), st.integers(12, 28)).map(lambda ends: BASE[ends[0]:ends[1]])),
    min_size=2, max_size=14, unique=True))
@example([BASE[:13], BASE[:10]])  # 10 shingles and 7 of them: just near enough
@example([BASE[:13], BASE[:9]])
def test_near_pairs_are_exactly_those_of_the_definition(texts: list[str]) -> None:
    found = set(zip(*(indices.tolist() for indices in near_pairs(texts)), strict=True))
    wanted = {(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= SIMILARITY}
    assert found == wanted


def test_what_is_nearly_the_same() -> None:
    texts = ["Why is my card payment still pending?", "why is my card payment pending", "What is 4 + 7?",
             "What is 4 + 8?", "What is 4 - 7?", "What is 4+7", "", "?!", "great 😀", "great 😡"]
    assert groups(texts) == [0, 0, 1, 2, 3, 1, 4, 5, 6, 7]
    assert groups([]) == []
    assert normal("Top-up, NOW!") == "top up now"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=20, max_size=120), st.integers(0, 5))
def test_groups_never_straddle_and_strata_keep_their_share(rows: list[tuple[int, str]], seed: int) -> None:
    given_groups = [group if group < 4 else 100 + n for n, (group, _) in enumerate(rows)]
    strata = [stratum for _, stratum in rows]
    chosen = assign(given_groups, strata, SHARES, seed=seed)
    assert len(chosen) == len(rows) and set(chosen) <= set(SHARES)
    for group in set(given_groups):
        assert len({split for split, one in zip(chosen, given_groups, strict=True) if one == group}) == 1
    alone = assign(list(range(len(rows))), strata, SHARES, seed=seed)
    counts = Counter(zip(strata, alone, strict=True))
    for stratum, size in Counter(strata).items():
        if size >= 4:
            for split, share in SHARES.items():
                assert abs(counts[stratum, split] - share * size) < 1


def test_variants_of_a_text_stay_together(tmp_path: Path) -> None:
    lines = [f"{variant},{'ab'[n % 2]}" for n, text in enumerate(sentences(40))
             for variant in (text, text.upper() + "!", text + " pls")]
    task = tasks.create(csv_file(tmp_path / "a.csv", "text,label", lines), folder=tmp_path / "task")
    where: dict[str, set[str]] = {}
    for split, rows in task.splits.items():
        for row in rows:
            where.setdefault(normal(row.text).removesuffix(" pls"), set()).add(split)
    assert len(where) == 40 and all(len(splits) == 1 for splits in where.values())
    assert not [finding for finding in tasks.check(task) if "nearly" in finding.message]


@pytest.mark.parametrize("asked", ["input", "question", "prompt", "problem", "instruction"])
def test_programs_are_asked_for_with_tests_alone(asked: str, tmp_path: Path) -> None:
    records = [{asked: f"Write f{n}(x), which adds {n}: {text}", "tests": [f"assert f{n}(1) == {n + 1}"], "function": f"f{n}"}
               for n, text in enumerate(sentences(20), 1)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    task = tasks.create(tmp_path / "a.jsonl", folder=tmp_path / "task")
    (row, *_) = task.rows("train")
    name = row.metadata["function"]
    assert row.target is None and asyncio.run(task.grader.grade(row, f"def {name}(x):\n    return x + {name[1:]}")).passed
    assert not asyncio.run(task.grader.grade(row, f"def {name}(x):\n    return x")).passed


def test_with_a_grader_of_ones_own_nothing_needs_to_be_wanted(tmp_path: Path) -> None:
    (tmp_path / "grade.py").write_text("def grade(row, answer):\n    return 0 < len(answer) < 9\n")
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in sentences(20)))
    task = tasks.create(file, folder=tmp_path / "task", grader=str(tmp_path / "grade.py"))
    assert all(row.target is None for row in task.rows("train")) and len(task.rows("train")) == 12
    assert asyncio.run(task.grader.grade(task.rows("dev")[0], "short")).value == 1
    assert any("your grader alone judges" in note for note in task.notes)
    assert tasks.load(tmp_path / "task").hash == task.hash and all(found.level != "error" for found in tasks.check(tmp_path / "task"))
    with pytest.raises(UserError, match="cannot tell which column"):
        tasks.create(file, folder=tmp_path / "other")
    unwritten = tasks.create(file, folder=tmp_path / "unwritten", grader="grade_later.py")
    with pytest.raises(RolloutError, match=r"say in grade\.py"):
        asyncio.run(unwritten.grader.grade(unwritten.rows("dev")[0], "short"))


def test_of_rows_that_are_partly_labelled_the_others_are_left_out_still(tmp_path: Path) -> None:
    records = [{"input": text, "target": "yes" if n % 3 else None} for n, text in enumerate(sentences(30))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    task = tasks.create(tmp_path / "a.jsonl", folder=tmp_path / "task", grader="grade.py")
    assert sum(map(len, task.splits.values())) == 20
