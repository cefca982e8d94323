"""text_similarity: how near a text is to another.

`fuzzy_match` is rapidfuzz's weighted ratio; `rouge_1` to `rouge_5` and `rouge_l` are F1 (Lin 2004), as rouge-score
counts them; `bleu` (Papineni et al. 2002) and `gleu` (Wu et al. 2016) are of one sentence each, as NLTK counts them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rapidfuzz import fuzz

from posttrain.graders._openai import Graded, Make, one_of, required
from posttrain.graders._openai._templates import NoValue, Template
from posttrain.types import UserError

ROUGE = ("rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l")
METRICS = ("fuzzy_match", "bleu", "gleu", *ROUGE)
NEED_MORE = {"cosine": "an embedding model", "meteor": "WordNet, which does not travel with this installation"}
WORD = re.compile(r"\w+|[^\w\s]")


class Grader:
    def __init__(self, definition: Mapping[str, Any], _: Make) -> None:
        self.name, given, reference = required(definition, "name", "input", "reference")
        self.given, self.reference = Template(given, "grader.input"), Template(reference, "grader.reference")
        metric = definition.get("evaluation_metric")
        if metric in NEED_MORE:
            raise UserError(
                f"{metric} needs {NEED_MORE[metric]}",
                place="grader.evaluation_metric",
                remedy=f"give one of {', '.join(METRICS)}",
            )
        self.metric = one_of(definition, "evaluation_metric", METRICS)

    async def grade(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Graded:
        try:
            return Graded(similarity(self.metric, self.given.fill(item, sample), self.reference.fill(item, sample)))
        except NoValue as nothing:
            return Graded(0.0, {nothing.error: True})


def similarity(metric: str, given: str, reference: str) -> float:
    """From 0 to 1."""
    if metric == "fuzzy_match":
        return fuzz.WRatio(given, reference) / 100
    if metric in ROUGE:
        from rouge_score import rouge_scorer  # noqa: PLC0415  (NLTK with it: half a second)

        kind = metric.replace("_", "").replace("rougel", "rougeL")
        return float(rouge_scorer.RougeScorer([kind]).score(reference, given)[kind].fmeasure)
    from nltk.translate import bleu_score, gleu_score  # noqa: PLC0415

    said, wanted = WORD.findall(given), [WORD.findall(reference)]
    if not said or not wanted[0]:
        return float(said == wanted[0])
    if metric == "gleu":
        return float(gleu_score.sentence_gleu(wanted, said))
    smooth = bleu_score.SmoothingFunction().method4  # else a sentence without a run of four words is 0
    return float(bleu_score.sentence_bleu(wanted, said, smoothing_function=smooth))
