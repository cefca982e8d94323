"""TF-IDF and logistic regression: what can be had without a language model.  Records get one per closed field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy import sparse

from posttrain.candidates._copying import Copier
from posttrain.candidates._features import TextFeatures
from posttrain.candidates._floor import Answer, load_arrays, rollouts, save_arrays
from posttrain.runs import write_json
from posttrain.types import Kind, OnText, Rollout, Row, Sampling, target_text

ABSENT = ""
"""In the place of a value's JSON text: the record does not have this field."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Multinomial logistic regression: `weights` [values, terms] and `bias` [values], float32."""

    values: tuple[str, ...]
    weights: NDArray
    bias: NDArray

    def probabilities(self, vectors: sparse.csr_matrix) -> NDArray:
        """[texts, values]."""
        logits = vectors @ self.weights.T + self.bias
        likelihood = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        return likelihood / likelihood.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class LinearCandidate:
    """`fields` maps each field of the record, in writing order, to what finds its value (as JSON text).

    Where the answer is a label there is one field, named "", and its values are JSON texts too.
    """

    name: str
    features: TextFeatures
    fields: Mapping[str, Classifier | Copier]
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
        """The likeliest value of each field; its confidence takes the fields to be independent."""
        if not rows:
            return []
        texts = [row.text for row in rows]
        vectors = self.features.of(texts)
        found = {name: _find(field, texts, vectors) for name, field in self.fields.items()}
        answers = []
        for i in range(len(rows)):
            record = {name: json.loads(values[i][0]) for name, values in found.items() if values[i][0] != ABSENT}
            confidence = float(numpy.prod([values[i][1] for values in found.values()]))
            answers.append(Answer(target_text(record.get("", record)), confidence))
        return answers

    async def save(self, folder: Path) -> None:
        arrays: dict[str, NDArray] = {"idf": self.features.idf}
        fields: list[dict[str, Any]] = []
        for i, (name, field) in enumerate(self.fields.items()):
            arrays[f"weights_{i}"] = field.weights
            if isinstance(field, Classifier):
                arrays[f"bias_{i}"] = field.bias
                fields.append({"name": name, "values": field.values})
            else:
                fields.append(
                    {
                        "name": name,
                        "features": field.names,
                        "bias": field.bias,
                        "fallback": field.fallback,
                        "certainty": field.certainty,
                        "numeric": field.numeric,
                    }
                )
        save_arrays(folder / "arrays.npz", arrays)
        write_json(
            folder / "candidate.json",
            {"schema": 1, "class": "linear", "name": self.name, "terms": self.features.terms, "fields": fields},
        )


def load(folder: Path, data: Mapping[str, Any], open_policy: object = None) -> LinearCandidate:  # noqa: ARG001
    """The candidate saved in `folder`, whose candidate.json holds `data`."""
    arrays = load_arrays(folder / "arrays.npz")
    features = TextFeatures(tuple(tuple(terms) for terms in data["terms"]), arrays["idf"])
    fields: dict[str, Classifier | Copier] = {}
    for i, field in enumerate(data["fields"]):
        weights = arrays[f"weights_{i}"]
        fields[field["name"]] = (
            Classifier(tuple(field["values"]), weights, arrays[f"bias_{i}"])
            if "values" in field
            else Copier(
                tuple(field["features"]),
                weights,
                field["bias"],
                field["fallback"],
                field["certainty"],
                field["numeric"],
            )
        )
    return LinearCandidate(data["name"], features, fields)


def _find(field: Classifier | Copier, texts: Sequence[str], vectors: sparse.csr_matrix) -> list[tuple[str, float]]:
    if isinstance(field, Copier):
        return [field.choose(text) for text in texts]
    return [(field.values[best := int(row.argmax())], float(row[best])) for row in field.probabilities(vectors)]
