"""The Markdown a README shows is that of a run."""

from __future__ import annotations

import re

from synthetic_comparison import comparison

from posttrain.comparison.markdown import document, table


def test_every_candidate_has_a_line_and_the_recommended_one_is_bold() -> None:
    found = comparison()
    lines = table(found).splitlines()
    assert len(lines) == 2 + len(found.candidates) and len({line.count(" | ") for line in lines}) == 1
    bold = [line for line in lines if "**" in line]
    assert len(bold) == 1 and f"**{found.recommendation.candidate}**" in bold[0]
    scores = [int(str(re.search(r"(\d+) %", line)[1])) for line in lines[2:]]  # type: ignore[index]
    assert scores == sorted(scores, reverse=True)


def test_the_run_it_comes_from_is_named() -> None:
    found = comparison()
    text = document(found, {"commit": "0123456789abcdef"})
    assert found.recommendation.reason in text and "commit 012345678," in text and f"seed {found.seed}" in text
    assert "commit" not in document(found, {}).splitlines()[-1]
