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
from posttrain.evaluation.evaluate import quick_score
from posttrain.runs import Run
from posttrain.techniques._labelled import labelled
from posttrain.types import Candidate, Kind, Target, Task, target_text

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
    rows = [row for row in task.splits.get("dev") or task.rows("train") if row.target is not None]
    judged = [ConstantCandidate("constant", option, texts[option] / len(targets)) for option in dict.fromkeys(options)]
    scores = [await quick_score(constant, task, rows) for constant in judged]  # none right: a part may still be
    best = judged[scores.index(max(scores))]
    run.log(technique="constant", options=options, dev=[{"score": score, "value": value} for score, value in scores])
    return best


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
