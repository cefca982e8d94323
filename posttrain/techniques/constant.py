"""The floor under all floors: the commonest answer, whatever is asked.

Records: the commonest whole record, or the commonest value of each field, whichever does better on dev (whose rows
may be missing: then on train).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.candidates.constant import ConstantCandidate
from posttrain.runs import Run
from posttrain.techniques._labelled import labelled
from posttrain.types import Candidate, Kind, Row, Target, Task, target_text

KIND: Kind = "floor"
LABEL = "always the commonest answer"


async def teach(candidate: Candidate, task: Task, run: Run) -> Candidate:  # noqa: ARG001
    """Ignores `candidate`: there is nothing to build on.  Raises UserError when no train row has a target."""
    targets = [target for _, target in labelled(task)]
    texts = Counter(target_text(target) for target in targets)
    options = [texts.most_common(1)[0][0]]
    records = [target for target in targets if isinstance(target, Mapping)]
    if len(records) == len(targets):
        options.append(target_text(_commonest_values(records)))
    judged = task.splits.get("dev") or task.rows("train")
    scores = [await _score(option, judged, task) for option in dict.fromkeys(options)]
    best = options[scores.index(max(scores))]
    run.log(technique="constant", options=options, dev=[{"passed": passed, "value": value} for passed, value in scores])
    return ConstantCandidate("constant", best, texts[best] / len(targets))


def _commonest_values(records: Sequence[Mapping[str, Any]]) -> Target:
    """A record of each field's commonest value; a field most records lack is left out."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, value in record.items():
            counts.setdefault(name, Counter())[json.dumps(value)] += 1
    return {
        name: json.loads(count.most_common(1)[0][0])
        for name, count in counts.items()
        if 2 * count.total() >= len(records)
    }


async def _score(text: str, rows: Sequence[Row], task: Task) -> tuple[int, float]:
    """(rows passed, sum of values): a constant that passes nothing may still have a part right."""
    scores = [await task.grader.grade(row, text) for row in rows if row.target is not None]
    return sum(score.passed for score in scores), sum(score.value for score in scores)
