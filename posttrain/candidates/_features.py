"""Texts as TF-IDF vectors of words, pairs of words and short runs of characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from posttrain.types import UserError

PARTS: tuple[dict[str, Any], ...] = (
    {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    {"analyzer": "char_wb", "ngram_range": (3, 5)},  # stands misspellings and inflection
)
RARE = 100
"""With at least this many texts a term must be in two of them: half of all terms are in one only."""


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The terms of each part and their inverse document frequencies (float32, parts one after the other)."""

    terms: tuple[tuple[str, ...], ...]
    idf: NDArray

    @staticmethod
    def fit(texts: Sequence[str]) -> TextFeatures:
        """Raises UserError when the texts hold no term at all."""
        least = 2 if len(texts) >= RARE else 1
        terms: list[tuple[str, ...]] = []
        idf: list[float] = []
        for part in PARTS:
            analyse: Callable[[str], Iterable[str]] = CountVectorizer(**part).build_analyzer()
            frequency = Counter(term for text in texts for term in set(analyse(text)))
            terms.append(tuple(sorted(term for term, count in frequency.items() if count >= least)))
            idf += [numpy.log((1 + len(texts)) / (1 + frequency[term])) + 1 for term in terms[-1]]
        if not idf:
            raise UserError(
                "there is no text to learn from",
                place="train",
                remedy="check that the last message of each row holds the question",
            )
        return TextFeatures(tuple(terms), numpy.array(idf, dtype=numpy.float32))

    @cached_property
    def _counters(self) -> list[CountVectorizer]:
        return [
            CountVectorizer(**part, vocabulary={term: i for i, term in enumerate(terms)})
            for part, terms in zip(PARTS, self.terms, strict=True)
            if terms
        ]

    def of(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """[texts, terms] float32; counts damped to 1 + log, times idf, each part of unit length."""
        parts, start = [], 0
        for counter in self._counters:
            counts = counter.transform(texts).astype(numpy.float32)
            counts.data = 1 + numpy.log(counts.data)
            idf = self.idf[start : start + counts.shape[1]]
            parts.append(normalize(counts @ sparse.diags(idf)))
            start += len(idf)
        return sparse.hstack(parts, format="csr", dtype=numpy.float32)
