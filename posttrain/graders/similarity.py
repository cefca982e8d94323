"""How near the answer's wording is to the target's.  For free text where no exact answer exists.

`ratio` is 1 - (insertions + deletions) / (both lengths), on characters; `rouge_l` is the F1 of the longest common
subsequence of words (Lin 2004), with words as runs of letters and digits in any script.
"""

from __future__ import annotations

import re

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from posttrain.types import RolloutError, Row, Score, target_text

WORD = re.compile(r"[^\W_]+")


def ratio(answer: str, target: str) -> float:
    return fuzz.ratio(" ".join(answer.casefold().split()), " ".join(target.casefold().split())) / 100


def rouge_l(answer: str, target: str) -> float:
    given, wanted = WORD.findall(answer.lower()), WORD.findall(target.lower())
    if not given or not wanted:
        return float(answer.split() == target.split())
    return 2 * LCSseq.similarity(given, wanted) / (len(given) + len(wanted))


METRICS = {"ratio": ratio, "rouge_l": rouge_l}


class Grader:
    """Options: `metric`, "rouge_l" or "ratio"; `threshold`, the similarity at which an answer passes."""

    def __init__(self, *, metric: str = "rouge_l", threshold: float = 0.7) -> None:
        if metric not in METRICS:
            raise ValueError(f"no metric {metric!r}; known: {', '.join(METRICS)}")
        if not 0 < threshold <= 1:
            raise ValueError("threshold is a share above 0 and up to 1")
        self.metric, self.threshold = METRICS[metric], threshold

    async def grade(self, row: Row, answer: str) -> Score:
        if row.target is None or not target_text(row.target).strip():
            raise RolloutError("grader", f"row {row.id} has no target")
        target = target_text(row.target)
        value = self.metric(answer, target) if answer.strip() else 0.0
        near = value >= self.threshold
        return Score(value, near, explanation="" if near else f"wanted {target!r}")
