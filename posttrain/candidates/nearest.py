"""The target of the most similar train row: how far copying gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import sparse

from posttrain.candidates._features import TextFeatures
from posttrain.candidates._floor import Answer, load_arrays, rollouts, save_arrays
from posttrain.runs import write_json
from posttrain.types import Kind, OnText, Rollout, Row, Sampling


@dataclass(frozen=True, eq=False)
class NearestCandidate:
    """`vectors` [train rows, terms] are the TF-IDF vectors of the train rows, `targets` their targets as text."""

    name: str
    features: TextFeatures
    vectors: sparse.csr_matrix
    targets: tuple[str, ...]
    kind: Kind = "floor"
    model: str = ""

    async def attempt(
        self,
        rows: Sequence[Row],
        *,
        n: int = 1,
        sampling: Sampling | None = None,  # noqa: ARG002
        on_text: OnText | None = None,
    ) -> list[list[Rollout]]:
        return rollouts(rows, self._answers, n, on_text)

    def _answers(self, rows: Sequence[Row]) -> list[Answer]:
        """The largest cosine wins, the first of equals.  Likeness is no probability: no confidence is given."""
        if not rows:
            return []
        likeness = self.features.of([row.text for row in rows]) @ self.vectors.T
        return [Answer(self.targets[likeness[i].toarray().argmax()]) for i in range(len(rows))]

    async def save(self, folder: Path) -> None:
        vectors = {name: getattr(self.vectors, name) for name in ("data", "indices", "indptr")}
        save_arrays(folder / "arrays.npz", {"idf": self.features.idf, **vectors})
        write_json(
            folder / "candidate.json",
            {"schema": 1, "class": "nearest", "name": self.name, "terms": self.features.terms, "targets": self.targets},
        )


def load(folder: Path, data: Mapping[str, Any], open_policy: object = None) -> NearestCandidate:  # noqa: ARG001
    """The candidate saved in `folder`, whose candidate.json holds `data`."""
    arrays = load_arrays(folder / "arrays.npz")
    features = TextFeatures(tuple(tuple(terms) for terms in data["terms"]), arrays["idf"])
    shape = len(data["targets"]), len(features.idf)
    vectors = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    return NearestCandidate(data["name"], features, vectors, tuple(data["targets"]))
