"""Several adapters on a few rows each, as in a step of decoding: their low-rank products as one batched product.

One by one, they take longer to call than to compute: of eight adapters a quarter of the step.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

FEWEST = 4
"""Adapters: fewer are as quick one by one."""

MOST_ROWS = 16
"""Of one adapter: more are worth products of their own."""

MOST_STACKED = 64
"""Adapters whose stacks are kept: a second copy of their weights."""


class Member(Protocol):
    """An adapter (adapters.Adapter)."""

    tensors: dict[str, tuple[Tensor, Tensor]]
    stamp: int

    @property
    def scale(self) -> float: ...


Acting = tuple[Member, int, int]
"""(Who acts, on rows from, up to.)"""


class Run(NamedTuple):
    """Columns of a layer's output, and what is added to them: narrow[..., ranks] @ b, with b [k, rank, columns]."""

    columns: slice
    ranks: slice
    b: Tensor


class Stack(NamedTuple):
    """What k adapters add at one layer, with narrow = x @ a, a [k, in, ranks] times their scales.

    Those of a smaller rank are filled up with zeros.  Each has its own rows, so none can spoil another's numbers.
    """

    a: Tensor
    runs: list[Run]


Stacks = dict[tuple[str, ...], Stack]
"""By the paths of what is multiplied together."""


class Group:
    """Adapters that act on the same layers, each on its rows of a call."""

    def __init__(self, acting: Sequence[Acting], stacks: Stacks) -> None:
        self.members = [member for member, _, _ in acting]
        self.counts = [end - start for _, start, end in acting]
        self.starts = [start for _, start, _ in acting]
        self.most, self.stacks = max(self.counts), stacks
        self.device = next(iter(self.members[0].tensors.values()))[0].device

    def add(self, columns: Mapping[str, slice], x: Tensor, y: Tensor) -> None:
        """Adds to a layer's output y [rows, out] what the adapters make of its input x [rows, in], on the columns of
        each path that they know."""
        known = tuple(path for path in columns if path in self.members[0].tensors)
        if not known:
            return
        stack = self._stack(known, columns)
        read = x[self._places].view(len(self.members), self.most, -1)
        narrow = torch.bmm(read, stack.a.to(x.dtype))
        for run in stack.runs:
            wide = torch.bmm(narrow[..., run.ranks], run.b.to(x.dtype)).flatten(0, 1)
            y[:, run.columns].index_add_(0, self._rows, wide if self._all_own else wide[self._own])

    def _stack(self, paths: tuple[str, ...], columns: Mapping[str, slice]) -> Stack:
        """The adapters' tensors of a layer, laid out for the product."""
        if paths not in self.stacks:
            parts, runs, end = [], [], 0
            for path in paths:
                pairs = [member.tensors[path] for member in self.members]
                start, rank = end, max(len(a) for a, _ in pairs)
                end = start + rank
                scaled = [a.t() * member.scale for member, (a, _) in zip(self.members, pairs, strict=True)]
                parts.append(torch.stack([pad(a, (0, rank - a.shape[1])) for a in scaled]))
                b = torch.stack([pad(b.t(), (0, 0, 0, rank - b.shape[1])) for _, b in pairs])
                runs.append(Run(columns[path], slice(start, end), b))
            self.stacks[paths] = Stack(torch.cat(parts, dim=2), runs)
        return self.stacks[paths]

    @cached_property
    def _all_own(self) -> bool:
        return min(self.counts) == self.most

    @cached_property
    def _places(self) -> Tensor:
        """Rows of x to read, [k * most]: who has fewer than `most` reads its first again."""
        pairs = zip(self.starts, self.counts, strict=True)
        places = [start + (i if i < count else 0) for start, count in pairs for i in range(self.most)]
        return torch.tensor(places, device=self.device)

    @cached_property
    def _own(self) -> Tensor:
        """Those of the places that are not read again."""
        places = [j * self.most + i for j, count in enumerate(self.counts) for i in range(count)]
        return torch.tensor(places, device=self.device)

    @cached_property
    def _rows(self) -> Tensor:
        """The rows of y that they belong to."""
        return self._places[self._own]


class Groups:
    """Finds which adapters are worth a group, and keeps their stacks from call to call."""

    def __init__(self) -> None:
        self.kept: OrderedDict[tuple[int, ...], Stacks] = OrderedDict()  # by the members' stamps
        self._lock = threading.Lock()

    def find(self, acting: Sequence[Acting]) -> Group | None:
        """The group of a call, when its members acted together before: to lay out weights for a single call would take
        longer than it saves."""
        if torch.is_grad_enabled() or len(acting) < FEWEST or any(end - start > MOST_ROWS for _, start, end in acting):
            return None
        if any(member.tensors.keys() != acting[0][0].tensors.keys() for member, _, _ in acting):
            return None
        key = tuple(member.stamp for member, _, _ in acting)
        with self._lock:
            again = key in self.kept
            stacks = self.kept.setdefault(key, {})
            self.kept.move_to_end(key)
            while len(self.kept) > 1 and sum(map(len, self.kept)) > MOST_STACKED:
                self.kept.popitem(last=False)
        return Group(acting, stacks) if again else None

    def clear(self) -> None:
        """Gives the memory of all stacks back."""
        with self._lock:
            self.kept.clear()
