"""Attention over parts, and its gradient: attention.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.native.library import library, suits

MOST_SIZE = 256
"""Numbers of a head, a multiple of 16."""


@dataclass(frozen=True)
class Part:
    """Queries [start, end) attend to keys [first, last): the first query to `seen` of them, and each to one more than
    the one before it.  `position` is that of the first key."""

    start: int
    end: int
    first: int
    last: int
    seen: int
    position: int


class Parts:
    """Parts as C has them, with the positions of all queries [tokens], in int64."""

    def __init__(self, parts: Sequence[Part], positions: Tensor) -> None:
        self.count, self.positions = len(parts), positions.contiguous()
        self.table = torch.tensor([astuple(part) for part in parts], dtype=torch.int64)


@dataclass(frozen=True)
class Source:
    """Keys and values [1, key-value heads, keys, size], and the parts in which they are attended to."""

    keys: Tensor
    values: Tensor
    parts: Parts


def suits_attention(q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> bool:
    """Whether these functions compute that."""
    size = q.shape[3]
    alike = k.shape == v.shape and k.shape[3] == size and k.dtype == v.dtype == q.dtype
    return alike and manner.cap is None and size % 16 == 0 and size <= MOST_SIZE and suits(q)


def attend(q: Tensor, sources: Sequence[Source], manner: Manner) -> tuple[Tensor, Tensor]:
    """What queries [1, heads, tokens, size] see in all sources, like them, and the log-sum-exp of the scores [1, heads,
    tokens].  Each must see a key in one of them."""
    q, (_, heads, tokens, size) = _by_head(q), q.shape
    sources = [*map(_source_by_head, sources)]
    out = q.new_empty(1, tokens, heads, size).transpose(1, 2)
    largest, totals = q.new_empty(2, tokens, heads).unbind()
    told = told_manner(manner, heads, sources[0].keys.shape[1], size, sources[0].parts.positions)
    given = told_sources(sources)
    room = largest.data_ptr(), totals.data_ptr()
    library().attend(ctypes.byref(told), given, len(sources), tokens, *_placed(q), *_placed(out), *room)
    return out, totals.t()[None]


def attend_backward(
    gradient: Tensor, q: Tensor, source: Source, out: Tensor, total: Tensor, manner: Manner
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values, given that of `out`, what attention to one source came to, and of it
    the log-sum-exp [1, heads, tokens]."""
    q, out, gradient, totals = _by_head(q), _by_head(out), _by_head(gradient), total[0].t().contiguous()
    source = _source_by_head(source)
    like = q, source.keys, source.values
    found = [x.new_zeros(1, x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2) for x in like]
    told = told_manner(manner, q.shape[1], source.keys.shape[1], q.shape[3], source.parts.positions)
    given = told_sources([source])
    arrays = *_placed(q), *_placed(out), totals.data_ptr(), *_placed(gradient)
    rooms = [pointer for x in found for pointer in _placed(x)]
    library().attend_backward(ctypes.byref(told), given, *arrays, *rooms)
    return found[0], found[1], found[2]


class ToldManner(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("heads", "shared", "size", "window")),
        ("positions", ctypes.c_void_p),
        ("scale", ctypes.c_float),
    )


class ToldStrides(ctypes.Structure):
    _fields_ = (("token", ctypes.c_int64), ("head", ctypes.c_int64))


class ToldSource(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ToldStrides) for name in ("of_keys", "of_values")),
        ("parts", ctypes.c_void_p),
        ("count", ctypes.c_int64),
    )


def told_manner(
    manner: Manner, heads: int, key_value_heads: int, size: int, positions: Tensor | None = None
) -> ToldManner:
    """As C has it; `positions` [tokens] are those of the queries, which a window needs."""
    at = None if positions is None else positions.data_ptr()
    return ToldManner(heads, heads // key_value_heads, size, manner.window or 0, at, manner.scale)


def told_sources(sources: Sequence[Source]) -> ctypes.Array[ToldSource]:
    """As C has them."""
    return (ToldSource * len(sources))(*map(_told_source, sources))


def _told_source(source: Source) -> ToldSource:
    keys, values, parts = source.keys, source.values, source.parts
    return ToldSource(
        keys.data_ptr(), values.data_ptr(), _strides(keys), _strides(values), parts.table.data_ptr(), parts.count
    )


def _strides(x: Tensor) -> ToldStrides:
    return ToldStrides(x.stride(2), x.stride(1))


def _placed(x: Tensor) -> tuple[int, Any]:
    """Where an array [1, heads, tokens, size] is, and how it lies there."""
    return x.data_ptr(), ctypes.byref(_strides(x))


def _by_head(x: Tensor) -> Tensor:
    """The numbers of a head must lie together."""
    return x if x.stride(3) == 1 else x.contiguous()


def _source_by_head(source: Source) -> Source:
    keys, values = _by_head(source.keys), _by_head(source.values)
    return source if keys is source.keys and values is source.values else Source(keys, values, source.parts)
