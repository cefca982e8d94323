"""report.json, the terminal table and report.html of one made-up comparison."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_comparison import comparison, evaluation

from posttrain.comparison import charts, html, table, wording
from posttrain.comparison.money import BreakEven, Cost
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.verdict import decide
from posttrain.types import UserError

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>\u2028&amp;{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def found() -> ComparisonResult:
    return comparison()


def printed(renderable: object, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


# ------------------------------------------------------------------------------------------------ report.json


def test_the_report_has_the_fields_programs_rely_on(found: ComparisonResult) -> None:
    """Those they rely on, and exactly these beside them: docs/guides/evaluating.md says what else there is."""
    report = json.loads(json.dumps(found.to_report(), allow_nan=False))
    assert report["precision"] == {"smollm2": "bfloat16"}
    assert set(report) == {"schema", "task", "model", "candidates", "comparisons", "recommendation"} | {"precision",
        "scored_by", "reference", "yours", "margin", "volume_per_month", "ceiling", "detectable_difference", "test_uses",
        "run", "seed", "seeds", "estimate_seconds", "actual_seconds", "estimate_memory_bytes", "actual_memory_bytes",
        "timings", "notes"}
    assert set(report["task"]) == {"name", "version", "hash"}
    for entry in report["candidates"]:
        assert set(entry) == {
            "name", "technique", "model", "kind", "score", "interval", "n", "valid_rate", "prompt_tokens_per_request",
            "completion_tokens_per_request", "latency_seconds", "training_seconds", "trained_tokens", "training_runs",
            "one_off_cost", "cost_per_1000_requests", "cost_unit", "requests_to_break_even", "slices"} | {
            "label", "dev_score", "error_rate", "parts", "search_seconds", "seed_scores", "cost_per_request",
            "standing_cost_per_month", "cost_rows", "months_to_pay_back", "when_a_fact_changes", "learning_curve",
            "curves", "notes", "suspicions"}
        assert set(entry["latency_seconds"]) == {"p50", "p95", "p95_under_8"}
        assert set(entry["requests_to_break_even"]) == {"value", "interval", "verdict"}
        may_be_null = {"valid_rate", "one_off_cost", "cost_per_1000_requests", "cost_unit", "dev_score", "cost_per_request",
                       "standing_cost_per_month", "months_to_pay_back"}
        assert {key for key, value in entry.items() if value is None} <= may_be_null
        assert entry["interval"][0] <= entry["score"] <= entry["interval"][1]
        assert entry["kind"] in ("floor", "prompt", "weights", "given")
        for part in entry["slices"]:
            assert set(part) == {"name", "score", "interval", "n"}
    taught = next(entry for entry in report["candidates"] if entry["name"] == "sft")
    assert taught["latency_seconds"]["p95"] > taught["latency_seconds"]["p50"] > 0
    assert taught["requests_to_break_even"]["value"] > 0
    ours = next(entry for entry in report["candidates"] if entry["name"] == report["reference"])
    assert set(ours["latency_seconds"].values()) == {None} and ours["cost_unit"] is None
    for test in report["comparisons"]:
        assert set(test) == {"a", "b", "difference", "interval", "p_value", "p_value_adjusted", "test"} | {
            "family", "word", "discordance"}
    assert set(report["recommendation"]) == {"candidate", "reason"} | {"outcome", "sentences"}
    assert report["recommendation"]["candidate"] == "retrieval+sft" and report["recommendation"]["reason"]


def test_a_report_is_read_back_whole(found: ComparisonResult) -> None:
    report = json.loads(json.dumps(found.to_report()))
    again = ComparisonResult.from_report(report, [result.evaluation for result in found.candidates])
    assert again == found
    assert "precision" not in (older := {key: value for key, value in report.items() if key != "precision"})
    assert ComparisonResult.from_report(older, [result.evaluation for result in found.candidates]).precision == {}
    with pytest.raises(UserError, match="no evaluation of ours"):
        ComparisonResult.from_report(report, [r.evaluation for r in found.candidates if r.name != "ours"])
    with pytest.raises(UserError, match="schema"):
        ComparisonResult.from_report({**report, "schema": 99}, [])


# ------------------------------------------------------------------------------------------------ terminal


@pytest.mark.parametrize("width", [80, 100, 112, 120, 160])
def test_tables_fit_and_lose_no_column(found: ComparisonResult, width: int) -> None:
    lines = printed(table.final(found, width=width), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    for word in ("right", "against", "worst", "valid", "p95 alone", "per 1,000", "once", "breaks", "when a fact"):
        assert word in text
    for value in ("▸retrieval+sft", "71 %", "62–78", "+19 better", "+12 to +26", "60 % n=20", "1.2 s", "after 250"):
        assert value in text
    assert "The test split has been used once in this folder of runs." in " ".join(text.split())
    assert "Model: smollm2." in text and "Months are those of 20,000 requests." in text
    assert "One training run: retrieval+sft, sft+grpo." in " ".join(text.split())
    assert max(map(len, printed(table.everything(found), width))) <= width


@pytest.mark.parametrize(("width", "whole"), [(80, True), (100, True), (112, False), (120, True), (160, True)])
def test_labels_are_whole_where_there_is_room(found: ComparisonResult, width: int, whole: bool) -> None:
    """In 112 columns the others leave room for 24; in 80 there are two tables, each with room to spare."""
    longest = "majority of several answers"
    named = replace(found, candidates=tuple(replace(each, label=longest) for each in found.candidates))
    text = "\n".join(lines := printed(table.final(named, width=width), width))
    assert max(map(len, lines)) <= width
    assert text.count(longest) == (len(found.candidates) * (2 if width < 112 else 1) if whole else 0)
    chain = "documents in the prompt, then fine-tuned on the answers"
    row = replace(found.candidates[0], label=chain)
    for wide, shown in ((112, False), (160, True)):
        assert (chain in "\n".join(printed(table.row(row, width=wide), wide))) == shown
        assert (chain in "\n".join(printed(table.final(replace(found, candidates=(row,)), width=wide), wide))) or not shown


def test_what_is_yours_is_called_that(found: ComparisonResult, tmp_path: Path) -> None:
    endpoint = replace(found, reference="few_shot", yours="few_shot")
    prompted = replace(found, reference="few_shot", yours=None)
    for each, heading, title in ((endpoint, "yours", "against yours, few_shot"), (prompted, "few_shot", "against few_shot")):
        lines = printed(table.final(each, width=112), 112)
        assert heading in lines[1].split()
        assert title in page(each, tmp_path)[0]


def test_when_it_pays_has_its_interval_or_its_months(found: ComparisonResult) -> None:
    def cell(result: CandidateResult) -> str:
        return table._break_even(found, result)

    taught = found.candidate("sft")
    assert taught.break_even is not None and taught.break_even.interval is not None
    low, high = map(wording.count, taught.break_even.interval)
    assert cell(taught) == f"{taught.break_even.verdict}\n[dim]{low} to {high}[/]"
    paid = replace(taught, payback=BreakEven(2.5, (2.0, 3.0), "after 2.5 months"))
    assert cell(paid) == f"{taught.break_even.verdict}\n[dim]after 2.5 months[/]"
    never = BreakEven(None, None, "never")
    assert cell(replace(taught, break_even=never, payback=never)) == "never"
    depends = BreakEven(None, None, "depends on the volume: standing costs differ")
    assert cell(replace(paid, break_even=depends)) == "depends on the volume\n[dim]after 2.5 months[/]"


def test_rows_as_candidates_finish_have_fixed_columns(found: ComparisonResult) -> None:
    for width in (80, 112):
        lines = printed(table.header("right", width), width)
        for result in found.candidates:
            lines += printed(table.row(result, seconds_left=301, width=width), width)
        assert len(lines) == 1 + len(found.candidates) and max(map(len, lines)) <= width
        assert len({line.index(" %") for line in lines[1:]}) == 1
        assert all(line.rstrip().endswith("5 min") for line in lines[1:])


def test_failed_rollouts_are_shown(found: ComparisonResult) -> None:
    one = found.candidates[0]
    failed = tuple(replace(attempt, error="policy: timed out") for attempt in one.evaluation.attempts[:60])
    broken = replace(one, evaluation=replace(one.evaluation, attempts=failed + one.evaluation.attempts[60:]))
    assert "50 % failed" in printed(table.row(broken), 120)[0]


def test_markup_in_names_is_printed_not_obeyed(found: ComparisonResult) -> None:
    odd = replace(found.candidates[0], label="[red]not markup[/]", update_rule="[bold")
    changed = replace(found, candidates=(odd, *found.candidates[1:]))
    text = "\n".join(printed(table.final(changed, width=120), 120))
    assert "[red]not markup[/]" in text and "[bold" in text


# ------------------------------------------------------------------------------------------------ report.html


class Page(HTMLParser):
    """Collects what a browser would see: tags with attributes, text, the JSON block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data, self.inside = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = "data" if dict(attrs).get("id") == "rows-data" else tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.data += data
        elif self.inside not in ("script", "style"):
            self.text.append(data)


def page(found: ComparisonResult, folder: Path) -> tuple[str, Page]:
    path = folder / "report.html"
    html.render(found, [result.evaluation for result in found.candidates], path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def rendered(found: ComparisonResult, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return page(found, tmp_path_factory.mktemp("report"))


def test_the_page_asks_nobody_for_anything(rendered: tuple[str, Page]) -> None:
    text, seen = rendered
    for tag, attributes in seen.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form"), tag
        assert not {"src", "srcset", "action"} & set(attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in text and "@import" not in text and "url(http" not in text


def test_the_page_says_what_was_found(found: ComparisonResult, rendered: tuple[str, Page]) -> None:
    text, seen = rendered
    body = " ".join(" ".join(seen.text).split())
    assert found.recommendation.sentences[0] in body and found.recommendation.sentences[1] in body
    assert "cannot tell differences below" in body and "test split used once in this folder of runs" in body
    assert "The test split has been used once in this folder of runs (others are not counted)" in body
    assert "computed in bfloat16" in body
    order = [text.index(f'id="{name}"') for name in ("table", "sure", "cost", "labels", "rows", "slices", "training")]
    assert order == sorted(order)
    assert "200 more rows: about +8 points" in body
    assert "20,000, a month of yours" in body
    assert "labellers agree on 86 %" in body
    pictures = [attributes["aria-label"] for _, attributes in seen.tags if attributes.get("role") == "img"]
    assert [str(name).partition(" of ")[0].partition(",")[0].partition(" against")[0] for name in pictures] == [
        "Paired difference", "Total cost", "Score", "Score", *["Training curves"] * (len(pictures) - 4)]
    for part in ("cost against number of requests", "Score against cost", "Score against number of labelled rows"):
        assert sum(part in str(name) for name in pictures) == 1, part
    assert len(pictures) > 4
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_browser_holds_every_disagreement(found: ComparisonResult, rendered: tuple[str, Page]) -> None:
    data = json.loads(rendered[1].data)
    passed = list(zip(*([a.passed for a in result.evaluation.attempts] for result in found.ranked), strict=True))
    assert len(data["rows"]) == data["differing"] == sum(len(set(each)) > 1 for each in passed)
    row = next(row for row in data["rows"] if row["id"] == "test-007")
    for result, attempt in zip(found.ranked, row["attempts"], strict=True):
        kept = result.evaluation.attempts[7]
        assert (attempt["outcome"] == 1, data["texts"][attempt["answer"]]) == (kept.passed, kept.answer)
        assert [data["texts"][i] for _, i in attempt["messages"]] == [m["content"] for m in kept.messages]


def test_hostile_rows_stay_text(tmp_path: Path) -> None:
    results = []
    few, most = [False] * 10 + [True] * 2, [True] * 10 + [False] * 2
    for name, kind, outcomes in [(HOSTILE, "prompt", few), ("sft" + HOSTILE, "weights", most), ("b", "weights", most)]:
        clean = evaluation(name, outcomes)
        attempts = tuple(replace(a, text=HOSTILE, answer=HOSTILE, target=HOSTILE + "!", slices=(HOSTILE,),
                                 messages=({"role": "user", "content": HOSTILE},)) for a in clean.attempts)
        results.append(CandidateResult(name, HOSTILE, name, HOSTILE, kind, replace(clean, attempts=attempts),  # type: ignore[arg-type]
                                       dev_score=0.5, update_rule=HOSTILE, notes=(HOSTILE,), cost=Cost(1.0, 2.0),
                                       learning_curve=((5, 0.1), (9, 0.5)), curves=({"step": 1, "loss": 2.0},) * 2))
    comparisons, recommendation = decide(results)
    found = ComparisonResult(HOSTILE, "1", "hash", HOSTILE, tuple(results), tuple(comparisons), recommendation,
                             reference=results[0].name, notes=(HOSTILE,))
    text, seen = page(found, tmp_path)
    assert [tag for tag, _ in seen.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in seen.tags]
    assert not re.search(r"<img", text) and "\u2028" not in seen.data
    assert json.loads(seen.data)["rows"][0]["text"] == HOSTILE
    assert "{{ 7 * 7 }}" in " ".join(seen.text)


def test_a_page_with_next_to_nothing_to_show(tmp_path: Path) -> None:
    only = CandidateResult("constant", "commonest answer", "constant", "", "floor",
                           evaluation("constant", [False] * 4, slices=False), dev_score=0.0,
                           curves=({"event": "fitted"},))
    comparisons, recommendation = decide([only])
    found = ComparisonResult("toy", "1", "hash", "", (only,), tuple(comparisons), recommendation)
    text, seen = page(found, tmp_path)
    assert "<svg" not in text and "There is no reference" in " ".join(seen.text) and "computed in" not in text
    assert json.loads(seen.data)["rows"] == []


def test_the_links_of_a_chain_have_curves_of_their_own(found: ComparisonResult) -> None:
    curves = [{"technique": link, "step": step, "loss": loss - step / 10, "schema": 1}
              for link, loss in (("sft", 6.0), ("dpo", 0.7)) for step in range(5)]
    taught = replace(found.candidates[-1], curves=tuple(curves))
    svg = charts.drawn("curves", lambda width: charts.training(taught, width))
    assert svg.index("sft: loss") < svg.index("dpo: loss")
    alone = charts.drawn("curves", lambda width: charts.training(replace(taught, curves=tuple(curves[:5])), width))
    assert "sft: loss" not in alone and "loss" in alone


def test_charts_are_drawn_in_the_pages_colours_with_ids_of_their_own(found: ComparisonResult) -> None:
    svg = charts.drawn("forest", lambda width: charts.forest(found, width))
    assert svg.count("<svg") == 2 and "currentColor" in svg and "var(--weights)" in svg
    assert not re.search(r'"clip\d|#clip\d', svg)
    assert 'fill="white"' not in svg and 'fill="#000"' not in svg
