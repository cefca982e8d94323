"""The Markdown a README shows is that of a run."""

from __future__ import annotations

import re
from dataclasses import replace

from synthetic_comparison import comparison

from posttrain.comparison.markdown import document, table
from posttrain.comparison.money import Cost
from posttrain.comparison.results import Latency
from posttrain.evaluation.record import Evaluation


def test_every_candidate_has_a_line_and_the_recommended_one_is_bold() -> None:
    found = comparison()
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(found.candidates) and len({line.count("|") for line in lines}) == 1
    bold = [line for line in lines if "**" in line]
    assert len(bold) == 1 and bold[0].startswith(f"| **{found.recommendation.candidate}** |") and "**71 %**" in bold[0]
    scores = [int(str(re.search(r"(\d+) %", line)[1])) for line in lines[2:]]  # type: ignore[index]
    assert scores == sorted(scores, reverse=True)


def test_the_columns_are_those_of_the_readme() -> None:
    found = comparison(own=False)
    heading, rule, *lines = table(found).splitlines()
    assert heading == ("| candidate | | right (95 %) | against the best prompt | valid output | p95 alone / under 8 users | "
                       "per 1,000 requests | once |")
    assert rule == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    by_name = {line.split(" | ")[0].strip("|* "): line for line in lines}
    assert by_name["knn_few_shot"] == (
        "| knn_few_shot | the nearest examples in the prompt | 34 % (26–43) | reference | 100 % | 2.0 s / 6.0 s | "
        "25 min | 15 s |")
    assert by_name["nearest"].endswith("| 3 ms / 8 ms | 2.0 s | – |"), "what took no time is no cost"
    assert "−25 worse" in by_name["constant"] and "cannot tell" in by_name["linear"]
    assert not re.search(r"\d cannot tell", "".join(lines)), "a difference that cannot be told is no number"
    assert "against yours" in table(comparison()).splitlines()[0]
    endpoint = replace(found, yours=found.reference)
    assert "against yours" in table(endpoint).splitlines()[0]


def silent(evaluation: Evaluation) -> Evaluation:
    """As by a grader that does not say whether an answer has the form that is wanted."""
    return replace(evaluation, attempts=tuple(replace(attempt, valid=None) for attempt in evaluation.attempts))


def test_a_column_with_nothing_in_it_is_left_out() -> None:
    found = comparison()
    bare = replace(found, reference=None, comparisons=(), candidates=tuple(
        replace(result, latency=None, cost=None, evaluation=silent(result.evaluation)) for result in found.candidates))
    assert table(bare).splitlines()[0] == "| candidate | | right (95 %) |"


def test_prices_bring_the_cost_of_requests() -> None:
    found = comparison()
    priced = replace(found, candidates=tuple(
        replace(result, cost=Cost(1.5, 0.002, unit="$")) for result in found.candidates))
    lines = table(priced).splitlines()
    assert lines[0].endswith("| per 1,000 requests | once |") and lines[2].endswith("| $2.00 | $1.50 |")


def test_failed_requests_are_shown() -> None:
    found = comparison()
    first = found.ranked[0]
    attempts = tuple(replace(attempt, error="policy: timed out") for attempt in first.evaluation.attempts)
    broken = replace(first, evaluation=replace(first.evaluation, attempts=attempts))
    changed = replace(found, candidates=(broken, *found.ranked[1:]))
    assert "100 % failed" in table(changed)


def test_names_are_text_whatever_is_in_them() -> None:
    found = comparison()
    odd = replace(found.candidates[0], name="a|b_c\n<img>*x*_y_", label="`code` [link](x)",
                  latency=Latency(1, 2, None))
    lines = table(replace(found, candidates=(odd, *found.candidates[1:]))).splitlines()
    (line,) = [line for line in lines if "img" in line]
    assert line.startswith(r"| a\|b_c \<img\>\*x\*\_y\_ | \`code\` \[link\](x) | ")
    assert "2.0 s / –" in line


def test_the_run_it_comes_from_is_named() -> None:
    found = comparison()
    text = document(replace(found, run="runs/20261123-1-tickets-compare"),
                    {"commit": "0123456-dirty", "date": "2026-11-23", "minutes": 10.0})
    assert f"\n\n> {found.recommendation.reason}\n\n" in text
    assert text.splitlines()[-1] == (
        "Run `20261123-1-tickets-compare` of 2026-11-23, commit 0123456-dirty, model smollm2, 120 test rows, "
        "`--minutes 10`, seed 0, took 12 min. One training run: retrieval+sft, sft+grpo. "
        "3 training runs of sft: 64, 62, 66 %.")
    assert not {"commit", "minutes"} & set(document(found, {}).splitlines()[-1].split())
