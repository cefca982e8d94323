"""A floor: logistic regression on TF-IDF, for answers from a closed set.

A record gets one classifier for each closed field: one whose schema lists its values, or whose values in train are
few (five rows to a value at least).  A field with open values is filled by copying the likeliest number in the text
(see candidates/_copying.py), or by its commonest value: floors are kept simple.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from posttrain.candidates._copying import Copier, as_json, numbers
from posttrain.candidates._features import TextFeatures
from posttrain.candidates.linear import ABSENT, Classifier, LinearCandidate
from posttrain.runs import Run
from posttrain.techniques._labelled import labelled
from posttrain.types import Candidate, Kind, Row, Target, Task, UserError

KIND: Kind = "floor"
LABEL = "word statistics, no model"


STRENGTHS = (4.0, 32.0, 256.0)
"""Inverse strengths of the L2 penalty; the one with the lowest cross-entropy on dev is taken."""
WITHOUT_DEV = 32.0
ROWS_PER_VALUE = 5


async def teach(candidate: Candidate, task: Task, run: Run) -> Candidate:  # noqa: ARG001
    """Ignores `candidate`: there is nothing to build on.  Raises UserError when nothing to say is a closed set."""
    rows = [row for row, _ in labelled(task)]
    dev = [row for row in task.splits.get("dev", ()) if row.target is not None]
    values, dev_values = _values(rows, task), _values(dev, task)
    closed = [name for name, found in values.items() if _is_closed(name, found, task)]
    if not closed:
        raise UserError(
            "linear needs a closed set of labels; this task's answers are open",
            place=f"task {task.name}",
            remedy="leave linear out, or list the labels under [output] in task.toml",
        )
    texts = [row.text for row in rows]
    features = TextFeatures.fit(texts)
    vectors = features.of(texts)
    dev_vectors = features.of([row.text for row in dev]) if dev else vectors[:0]
    fields: dict[str, Classifier | Copier] = {}
    for i, (name, found) in enumerate(values.items()):
        run.progress("linear", i, len(values), name)
        if name not in closed:
            fields[name] = fit_copier(texts, found)
            continue
        fields[name], tried = _best_classifier(vectors, found, dev_vectors, dev_values.get(name, []))
        run.log(technique="linear", field=name, dev_cross_entropy=tried)
    return LinearCandidate("linear", features, fields)


def _values(rows: Sequence[Row], task: Task) -> dict[str, list[str]]:
    """For each field its values, one per row, as JSON text.  Labels are the one field of a nameless record."""
    records = [_record(row.target, task) for row in rows if row.target is not None]
    names = dict.fromkeys(name for record in records for name in record)
    return {
        name: [json.dumps(record[name], ensure_ascii=False) if name in record else ABSENT for record in records]
        for name in names
    }


def _record(target: Target, task: Task) -> Mapping[str, Any]:
    if isinstance(target, str) and task.output.schema is not None:
        return json.loads(target)
    return {"": target} if isinstance(target, str) else target


def _is_closed(name: str, values: Sequence[str], task: Task) -> bool:
    if name == "":
        return bool(task.output.labels)
    schema = (task.output.schema or {}).get("properties", {}).get(name, {})
    if "enum" in schema or "const" in schema or schema.get("type") == "boolean":
        return True
    known = [value for value in values if value not in ("null", ABSENT)]
    return len(set(known)) * ROWS_PER_VALUE <= len(known)


def _best_classifier(
    vectors: sparse.csr_matrix, values: Sequence[str], dev_vectors: sparse.csr_matrix, dev_values: Sequence[str]
) -> tuple[Classifier, dict[str, float]]:
    """The best on dev, and the cross-entropy there of each strength.  Values never seen in train do not count."""
    known = set(values)
    kept = [i for i, value in enumerate(dev_values) if value in known]
    if not kept or len(known) == 1:
        return fit_classifier(vectors, values, WITHOUT_DEV), {}
    fitted = {strength: fit_classifier(vectors, values, strength) for strength in STRENGTHS}
    losses = {
        strength: _cross_entropy(model, dev_vectors[kept], [dev_values[i] for i in kept])
        for strength, model in fitted.items()
    }
    return fitted[min(losses, key=lambda strength: losses[strength])], {str(key): loss for key, loss in losses.items()}


def fit_classifier(vectors: sparse.csr_matrix, values: Sequence[str], strength: float) -> Classifier:
    """Multinomial logistic regression; `strength` is the inverse strength of the L2 penalty."""
    names = sorted(set(values))
    if len(names) == 1:
        nothing = numpy.zeros((1, vectors.shape[1]), numpy.float32)
        return Classifier(tuple(names), nothing, nothing[:, 0])
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
    model.fit(vectors, [names.index(value) for value in values])
    weights, bias = model.coef_, model.intercept_
    if len(names) == 2:  # scikit-learn keeps the logit of the second value only
        weights, bias = numpy.vstack([numpy.zeros_like(weights), weights]), numpy.array([0.0, bias[0]])
    return Classifier(tuple(names), weights.astype(numpy.float32), bias.astype(numpy.float32))


def _cross_entropy(model: Classifier, vectors: sparse.csr_matrix, values: Sequence[str]) -> float:
    right: NDArray = model.probabilities(vectors)[range(len(values)), [model.values.index(value) for value in values]]
    return float(-numpy.log(numpy.maximum(right, 1e-9)).mean())


def fit_copier(texts: Sequence[str], values: Sequence[str]) -> Copier:
    """Learns which number of a text is the value of its field, and when none is.  `values` are JSON texts."""
    fallback = Counter(values).most_common(1)[0][0]
    numeric = sum(value[:1].isdigit() for value in values) > sum(value[:1] == '"' for value in values)
    seen = [
        (features, as_json(number, numeric) == value)
        for text, value in zip(texts, values, strict=True)
        for number, features in numbers(text).items()
    ]
    names = tuple(sorted({feature for features, _ in seen for feature in features}))
    right = [copied for _, copied in seen]
    if len(set(right)) < 2:  # never to be copied, or always
        copier = Copier((), numpy.zeros(0), 5.0 if any(right) else -5.0, fallback, 0.0, numeric)
    else:
        index = {name: i for i, name in enumerate(names)}
        columns = [index[feature] for features, _ in seen for feature in features]
        ends = numpy.cumsum([0, *(len(features) for features, _ in seen)])
        presence = sparse.csr_matrix((numpy.ones(len(columns)), columns, ends), shape=(len(seen), len(names)))
        model = LogisticRegression(C=WITHOUT_DEV, max_iter=1000).fit(presence, right)
        copier = Copier(names, model.coef_[0], float(model.intercept_[0]), fallback, 0.0, numeric)
    alone = [value for text, value in zip(texts, values, strict=True) if copier.likeliest(text)[1] <= 0.5]
    certainty = (alone.count(fallback) + 1) / (len(alone) + 2)  # one success and one failure added: never quite sure
    return replace(copier, certainty=certainty)
