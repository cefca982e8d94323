"""Which texts say nearly the same: so that both never stand on different sides of a split.

Two texts are near-duplicates when the sets of their runs of SHINGLE characters overlap by at least SIMILARITY
(Jaccard) once case, punctuation and white space are set aside, and their numbers are the same: "4 + 7" asks
something else than "4 + 8" or "4 - 7".  Exact, not sampled: candidates are found by prefix filtering (Chaudhuri,
Ganti and Kaushik 2006), as sets that overlap so much must share one of their rarest elements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SHINGLE = 4
SIMILARITY = 0.7
ROUNDING = 1e-9
OPERATOR = r"[-+*/=<>^%$€£¥×÷−]"
_WORD = re.compile(rf"[^\W_]+|{OPERATOR}(?=\s*\d)|[\u2600-\u27BF\U0001F000-\U0001FAFF]")
_NUMBER = re.compile(rf"{OPERATOR}? ?\d+")


def normal(text: str) -> str:
    """What a text says: its words, operators before numbers, and emoji; case, punctuation and white space gone."""
    return " ".join(_WORD.findall(text.casefold())) or text.strip()


def groups(texts: Sequence[str]) -> list[int]:
    """A group number per text; texts share one when a chain of near-duplicates joins them.  Numbered from 0 in
    the order of first appearance."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415  (a quarter of a second)

    if not texts:
        return []
    keys = [normal(text) for text in texts]
    distinct = list(dict.fromkeys(keys))
    rows, columns = near_pairs(distinct)
    starts = numpy.searchsorted(rows, numpy.arange(len(distinct) + 1))
    _, component = connected_components(_matrix(columns, starts, len(distinct)), directed=False)
    of_key = dict(zip(distinct, component.tolist(), strict=True))
    number: dict[int, int] = {}
    return [number.setdefault(of_key[key], len(number)) for key in keys]


def near_pairs(texts: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The pairs (i < j) of near-duplicates among normalised texts, as two arrays of indices, in order of i."""
    shingles = _shingles(texts)
    sizes = numpy.diff(shingles.indptr)
    prefixes = _rarest(shingles, sizes)
    rows, columns = (prefixes @ prefixes.T).nonzero()
    rows, columns = rows[rows < columns], columns[rows < columns]
    small, large = numpy.minimum(sizes[rows], sizes[columns]), numpy.maximum(sizes[rows], sizes[columns])
    possible = small >= SIMILARITY * large - ROUNDING
    rows, columns = rows[possible], columns[possible]
    near = numpy.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), 50_000):  # bounded memory
        part = slice(start, start + 50_000)
        common = shingles[rows[part]].multiply(shingles[columns[part]]).sum(axis=1)
        together = sizes[rows[part]] + sizes[columns[part]] - common
        near[part] = common >= SIMILARITY * together - ROUNDING
    rows, columns = rows[near], columns[near]
    numbers = [tuple(_NUMBER.findall(text)) for text in texts]
    same = numpy.array([numbers[i] == numbers[j] for i, j in zip(rows, columns, strict=True)], dtype=bool)
    return rows[same], columns[same]


def _shingles(texts: Sequence[str]) -> csr_array:
    """A binary matrix, texts by shingles: bit-packed runs of characters, each mixed into 64 bits."""
    sets = []
    for text in texts:
        codes = numpy.frombuffer(f"{text:<{SHINGLE}}".encode("utf-32-le"), dtype=numpy.uint32).astype(numpy.uint64)
        mixed = numpy.zeros(len(codes) - SHINGLE + 1, dtype=numpy.uint64)
        for offset in range(SHINGLE):
            mixed = mixed * numpy.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + len(mixed)]
        sets.append(numpy.unique(mixed))
    _, columns = numpy.unique(numpy.concatenate(sets), return_inverse=True)
    starts = numpy.cumsum([0, *map(len, sets)])
    return _matrix(columns, starts, columns.max() + 1)


def _rarest(shingles: csr_array, sizes: numpy.ndarray) -> csr_array:
    """Of each text only its rarest shingles: two texts that share none of these cannot be near-duplicates."""
    frequency = numpy.bincount(shingles.indices, minlength=shingles.shape[1])
    order = numpy.empty(shingles.shape[1], dtype=numpy.int64)
    order[numpy.argsort(frequency, kind="stable")] = numpy.arange(shingles.shape[1])
    kept, starts = [], [0]
    for row, size in enumerate(sizes.tolist()):
        columns = shingles.indices[shingles.indptr[row] : shingles.indptr[row + 1]]
        length = size - math.ceil(SIMILARITY * size - ROUNDING) + 1
        kept.append(columns[numpy.argsort(order[columns])[:length]])
        starts.append(starts[-1] + length)
    return _matrix(numpy.concatenate(kept), starts, shingles.shape[1])


def _matrix(columns: numpy.ndarray, starts: Sequence[int] | numpy.ndarray, width: int) -> csr_array:
    """A binary matrix: row i has ones in `columns[starts[i] : starts[i + 1]]`."""
    from scipy.sparse import csr_array  # noqa: PLC0415

    return csr_array((numpy.ones(len(columns), numpy.int32), columns, starts), shape=(len(starts) - 1, width))
