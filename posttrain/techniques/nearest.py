"""A floor: the target of the train row whose text is most like the one asked about."""

from __future__ import annotations

from posttrain.candidates._features import TextFeatures
from posttrain.candidates.nearest import NearestCandidate
from posttrain.runs import Run
from posttrain.types import Candidate, Task, UserError, target_text


async def teach(candidate: Candidate, task: Task, run: Run) -> Candidate:  # noqa: ARG001
    """Ignores `candidate`: there is nothing to build on.  Raises UserError when no train row has a target."""
    rows = [row for row in task.rows("train") if row.target is not None]
    if not rows:
        raise UserError("no train row has a target", place=f"task {task.name}", remedy="label some rows")
    texts = [row.text for row in rows]
    features = TextFeatures.fit(texts)
    targets = tuple(target_text(row.target) for row in rows if row.target is not None)
    return NearestCandidate("nearest", features, features.of(texts), targets)
