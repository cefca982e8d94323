"""A floor: the target of the train row whose text is most like the one asked about."""

from __future__ import annotations

from posttrain.candidates._features import TextFeatures
from posttrain.candidates.nearest import NearestCandidate
from posttrain.runs import Run
from posttrain.techniques._labelled import labelled
from posttrain.types import Candidate, Kind, Task, target_text

KIND: Kind = "floor"
LABEL = "answer of the nearest row"


async def teach(candidate: Candidate, task: Task, run: Run) -> Candidate:  # noqa: ARG001
    """Ignores `candidate`: there is nothing to build on.  Raises UserError when no train row has a target."""
    pairs = labelled(task)
    texts = [row.text for row, _ in pairs]
    features = TextFeatures.fit(texts)
    return NearestCandidate("nearest", features, features.of(texts), tuple(target_text(target) for _, target in pairs))
