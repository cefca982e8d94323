"""A batch as a forest of token prefixes: every distinct prefix is laid out, and so forwarded, once.

Sequences are inserted into radix trees (one per adapter), and the trees are written out depth first as one row
of tokens.  A *segment* is an edge of a tree: its tokens attend to themselves causally and to all tokens of the
segments above it.  Positions are those of the separate sequences, so the result is theirs too, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SHORTEST_SHARED = 8
"""Prefixes shorter than this are computed twice: one more segment would cost more than a few tokens."""

SMALLEST_PART = 48
"""Tokens: a smaller part takes as long as one of this size, for all weights are read."""

MOST_SHARED = 0.5
"""Of what is not shared: the threads of undivided products take a quarter to two thirds longer than parts side by
side (docs/notes/2026-11-28-grpo-cheaper-steps.md)."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """Tokens [start, end) of the layout; `ancestors` are the spans above it, root first.

    All tokens that see it but its own lie in one run: [end, reach).
    """

    start: int
    end: int
    ancestors: tuple[Span, ...]
    reach: int


@dataclass(frozen=True)
class Forest:
    """The layout of a batch.

    `tokens` and `positions` have one entry per laid-out token.  `spans[i]` says where sequence i lies, as spans
    to be read one after another.  `adapters` lists (adapter, start, end), contiguous and in order.
    """

    tokens: list[int]
    positions: list[int]
    segments: list[Segment]
    spans: list[tuple[Span, ...]]
    adapters: list[tuple[str, int, int]]

    def index(self, sequence: int) -> list[int]:
        """Where each token of a sequence lies in the layout."""
        return [i for start, end in self.spans[sequence] for i in range(start, end)]


@dataclass
class _Node:
    tokens: Sequence[int]
    children: list[_Node] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)  # (sequence, how many of `tokens` it covers)


def plant(sequences: Sequence[Sequence[int]], adapters: Sequence[str], *, first_position: int = 0) -> Forest:
    """Lays out `sequences` (token lists, none empty); sequence i is seen through adapters[i] ("": the bare base).

    `first_position` is the position of every first token, when what precedes it is cached elsewhere.
    """
    forest = Forest([], [], [], [()] * len(sequences), [])
    for adapter in sorted(set(adapters)):
        start = len(forest.tokens)
        root = _Node(())
        for i, (tokens, own) in enumerate(zip(sequences, adapters, strict=True)):
            if own == adapter:
                _insert(root, tokens, i)
        for child in root.children:
            _lay_out(child, (), first_position, forest)
        forest.adapters.append((adapter, start, len(forest.tokens)))
    return forest


def _insert(root: _Node, tokens: Sequence[int], sequence: int) -> int:
    """Puts a sequence into a tree; how many more tokens are laid out for it."""
    node, done = root, 0
    while True:
        rest = tokens[done:]
        child, shared = max(
            ((child, common_prefix(child.tokens, rest)) for child in node.children if child.tokens[0] == rest[0]),
            key=lambda pair: pair[1],
            default=(None, 0),
        )
        if child is None or (shared < len(child.tokens) and shared < len(rest) and shared < SHORTEST_SHARED):
            node.children.append(_Node(rest, ends=[(sequence, len(rest))]))
            return len(rest)
        if shared == len(rest):
            child.ends.append((sequence, shared))
            return 0
        if shared < len(child.tokens):
            _split(child, shared)
        node, done = child, done + shared


def _split(node: _Node, at: int) -> None:
    """Cuts an edge in two.  Sequences that end in its first half stay there."""
    lower = _Node(node.tokens[at:], node.children, [(i, length - at) for i, length in node.ends if length > at])
    node.ends = [(i, length) for i, length in node.ends if length <= at]
    node.tokens, node.children = node.tokens[:at], [lower]


def _lay_out(root: _Node, above: tuple[Span, ...], position: int, forest: Forest) -> None:
    found: list[tuple[int, int, tuple[Span, ...]]] = []
    stack = [(root, above, position)]
    while stack:
        node, ancestors, position = stack.pop()
        start = len(forest.tokens)
        end = start + len(node.tokens)
        forest.tokens.extend(node.tokens)
        forest.positions.extend(range(position, position + len(node.tokens)))
        found.append((start, end, ancestors))
        for sequence, length in node.ends:
            forest.spans[sequence] = (*ancestors, (start, start + length))
        below = (*ancestors, (start, end))
        stack.extend((child, below, position + len(node.tokens)) for child in reversed(node.children))
    forest.segments.extend(_reaching(found, len(forest.tokens)))


def _reaching(found: Sequence[tuple[int, int, tuple[Span, ...]]], end_of_tree: int) -> list[Segment]:
    """Segments from (start, end, ancestors), depth first: each reaches to the next that is no deeper."""
    segments: list[Segment] = []
    later: list[tuple[int, int]] = [(-1, end_of_tree)]  # (depth, start) of those behind, each less deep than the next
    for start, end, ancestors in reversed(found):
        while later[-1][0] > len(ancestors):
            later.pop()
        segments.append(Segment(start, end, ancestors, later[-1][1]))
        later.append((len(ancestors), start))
    return segments[::-1]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    for i, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return i
    return min(len(a), len(b))


def common_prefix_of_all(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all sequences share."""
    return min((common_prefix(a, b) for a, b in pairwise(sequences)), default=len(sequences[0]))


def share_out(groups: Sequence[Sequence[Sequence[int]]], most: int) -> list[list[int]]:
    """Shares a batch out into up to `most` parts of about equal size, to be computed side by side: lists of group
    numbers.  Into one when a part would be small, or when what all groups share, which each part computes, is long.
    """
    shared = common_prefix_of_all([tokens for group in groups for tokens in group])
    sizes = [sum(len(tokens) - shared for tokens in group) for group in groups]
    return deal(sizes, most if shared <= MOST_SHARED * sum(sizes) else 1)


def deal(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Up to `most` runs of numbers whose sizes (in tokens) sum to about the same, none to much less than
    `SMALLEST_PART`."""
    whole = max(1, sum(sizes))
    count = max(1, min(most, len(sizes), whole // SMALLEST_PART))
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for i, size in enumerate(sizes):
        parts[min(count - 1, int((before + size / 2) * count / whole))].append(i)  # the last may be of size 0
        before += size
    return [part for part in parts if part]


def cut(groups: Sequence[Sequence[Sequence[int]]], largest: int) -> Iterator[list[int]]:
    """Cuts a batch into micro-batches: yields lists of group numbers, each of at most `largest` laid-out tokens.

    A group (a list of sequences) is never cut, so one larger than `largest` comes alone.  Counted is what `plant` lays
    out for the sequences of a micro-batch through one adapter: a prefix once, however deep and in whatever order they
    share it, but one shorter than `SHORTEST_SHARED` again for each.
    """
    batch: list[int] = []
    tree, size = _Node(()), 0
    for i, group in enumerate(groups):
        added = sum(_insert(tree, tokens, i) for tokens in group)
        if batch and size + added > largest:
            yield batch
            batch, tree, size = [], _Node(()), 0
            added = sum(_insert(tree, tokens, i) for tokens in group)
        batch.append(i)
        size += added
    if batch:
        yield batch
