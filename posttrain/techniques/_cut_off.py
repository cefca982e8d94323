"""What is to be said of a training whose sampled answers were cut off at their greatest length."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.techniques._groups import CutOff

FEW_STEPS, MANY_MORE = 5, 0.3
"""Answers run on when in the last few steps many more of them, as a share, are cut off than in the first ones."""

BECAME = {"graded": "graded as they stood", "masked": "not learnt from", "wrong": "counted as wrong"}
"""What becomes of answers that were cut off, in words."""


def told(
    ended: int, cut_off: int, records: Sequence[Mapping[str, Any]], max_tokens: int, choice: CutOff
) -> dict[str, str]:
    """By title; nothing when all answers ended.  `records` are those of the log, step by step."""
    details = {}
    if not ended:
        details["never stops"] = (
            f"every answer sampled was cut off at {max_tokens} tokens, so stopping was never taught; "
            "raise max_tokens under [output], or teach sft first"
        )
    elif cut_off:
        details["cut off"] = (
            f"{cut_off} of {ended + cut_off} answers sampled ran into {max_tokens} tokens, and were "
            f"{BECAME[choice]}: cut_off={choice}"
        )
    if drifted := run_on(records, max_tokens):
        details["run on"] = drifted
    return details


def run_on(records: Sequence[Mapping[str, Any]], max_tokens: int) -> str:
    """What is to be said of a training in which answers have come to run into their limit; "" for another.

    Where the grader looks at what comes first, nothing keeps a policy from going on: two-digit sums were once followed
    by "Reminder:", and each step took a fifth longer.
    """
    shares = [record["truncated"] for record in records if "truncated" in record]
    if not shares:
        return ""
    first, last = statistics.fmean(shares[:FEW_STEPS]), statistics.fmean(shares[-FEW_STEPS:])
    if last - first < MANY_MORE:
        return ""
    return (
        f"{last:.0%} of the last answers sampled were cut off at {max_tokens} tokens, {first:.0%} of the first; do not "
        "reward what goes on after the answer: cut_off=masked or cut_off=wrong"
    )
