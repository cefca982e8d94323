"""Drawing the next token: constraint, temperature, truncation, and a random stream of the request's own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from posttrain.engines.constraints import Constraint
from posttrain.types import Sampling

LINES = 32
"""Distributions over the vocabulary that are looked at together: few enough to stay in the processor's cache."""

SUMMED = 4
"""And summed together."""

BLOCK = 256
"""Tokens whose probabilities are added up first, and looked into only where the draw falls."""


class Drawer(Protocol):
    """A completion that wants its next token."""

    sampling: Sampling
    constraint: Constraint | None
    generator: random.Random


class Drawn(NamedTuple):
    """A token, its log-probability under the policy at the sampling temperature (greedy: at 1), and the
    log-probability of that choice among what the constraint allowed; and, where they are wanted, the likeliest."""

    token: int
    logprob: float
    log_confidence: float
    top: tuple[tuple[int, float], ...] = ()


class _Way(NamedTuple):
    """Rows that draw in one way are drawn for together."""

    temperature: float
    top_k: int
    top_p: float
    constrained: bool
    top_logprobs: int


def draw(logits: Tensor, lines: Sequence[int], rows: Sequence[Drawer]) -> list[Drawn]:
    """The next token of every row; row i draws from logits[lines[i]] (logits [lines, vocabulary]).

    Many rows may draw from one line, as a group of answers does that begin alike.  What is drawn for a row is the same
    whatever other rows there are.  Where logits are no numbers, neither is the log-probability.
    """
    if logits.device.type == "mps":  # which knows no float64
        logits = logits.cpu()
    ways: dict[_Way, list[int]] = {}
    for i, row in enumerate(rows):
        sampling = row.sampling
        way = _Way(
            sampling.temperature, sampling.top_k, sampling.top_p, row.constraint is not None, sampling.top_logprobs
        )
        ways.setdefault(way, []).append(i)
    drawn: dict[int, Drawn] = {}
    for way, members in ways.items():
        for used, piece in _pieces(members, lines):
            asked = _lines(logits, used).float()
            logprobs = (asked if way.temperature in (0.0, 1.0) else asked / way.temperature).log_softmax(dim=1)
            number = {line: i for i, line in enumerate(used)}
            own = [number[lines[i]] for i in piece]
            some = [rows[i] for i in piece]
            draw_some = _constrained if way.constrained else _free
            found = draw_some(logprobs, own, some, way)
            if way.top_logprobs:
                tops = _likeliest(logprobs, way.top_logprobs)
                found = (each._replace(top=tops[line]) for each, line in zip(found, own, strict=True))
            drawn.update(zip(piece, found, strict=True))
    return [drawn[i] for i in range(len(rows))]


def _lines(logits: Tensor, used: Sequence[int]) -> Tensor:
    """Those lines of the logits, not copied where they lie together."""
    first, last = used[0], used[-1]
    return logits[first : last + 1] if [*used] == [*range(first, last + 1)] else logits[used]


def _pieces(members: Sequence[int], lines: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Cuts rows into pieces that draw from at most `LINES` lines: (those lines, the rows)."""
    by_line: dict[int, list[int]] = {}
    for i in members:
        by_line.setdefault(lines[i], []).append(i)
    for start in range(0, len(by_line), LINES):
        used = list(by_line)[start : start + LINES]
        yield used, [i for line in used for i in by_line[line]]


def _constrained(logprobs: Tensor, lines: Sequence[int], rows: Sequence[Drawer], way: _Way) -> Iterator[Drawn]:
    """One by one: each has a constraint of its own."""
    for line, row in zip(lines, rows, strict=True):
        assert row.constraint is not None
        allowed = row.constraint.allowed(logprobs.shape[1]).to(logprobs.device)
        among = logprobs[line, allowed].log_softmax(dim=0)
        choice = int(_choices(among[None], [0], [row], way)[0])
        token = int(allowed[choice])
        yield Drawn(token, float(logprobs[line, token]), float(among[choice]))


def _free(logprobs: Tensor, lines: Sequence[int], rows: Sequence[Drawer], way: _Way) -> Iterable[Drawn]:
    choices = _choices(logprobs, lines, rows, way)
    of_choices = logprobs[lines, choices].tolist()
    return [Drawn(*each) for each in zip(choices.tolist(), of_choices, of_choices, strict=True)]


def _likeliest(logprobs: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    """Of each line its `count` likeliest tokens with their log-probabilities, best first."""
    top = logprobs.topk(min(count, logprobs.shape[1]), dim=1)
    return [tuple(zip(*line, strict=True)) for line in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def _choices(logprobs: Tensor, lines: Sequence[int], rows: Sequence[Drawer], way: _Way) -> Tensor:
    """What each row chooses of logprobs[line], [rows]."""
    if way.temperature == 0:
        return logprobs.argmax(dim=1)[lines]
    points = [row.generator.random() for row in rows]
    masses = truncate(logprobs, way.top_k, way.top_p).exp()
    return pick(masses, lines, torch.tensor(points, dtype=torch.float64, device=logprobs.device))


def pick(masses: Tensor, lines: Sequence[int], points: Tensor) -> Tensor:
    """The choices [rows] at which the cumulated masses[line], [lines, choices] and not negative, pass the share
    `points` [rows], in [0, 1), of their sum: inverse transform sampling.

    One random number for each row, whatever the number of choices.  Sums are in float64; first over blocks, so that
    most of the masses are read once.
    """
    count = masses.shape[1]
    whole = pad(masses, (0, -count % BLOCK)) if count % BLOCK else masses
    blocks = whole.unflatten(1, (-1, BLOCK))
    # a few lines at a time: to be summed in float64, they are copied
    of_blocks = torch.cat([some.sum(dim=2, dtype=torch.float64) for some in blocks.split(SUMMED)])
    sums = of_blocks.cumsum(dim=1)[lines]  # [rows, blocks]
    wanted = points * sums[:, -1]
    block = _passed(sums, wanted)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    inside = blocks[lines, block].double().cumsum(dim=1)  # [rows, BLOCK]
    return block * BLOCK + _passed(inside, wanted - before)


def _passed(cumulated: Tensor, wanted: Tensor) -> Tensor:
    """The first places [rows] at which `cumulated` [rows, places] is more than `wanted` [rows]; where rounding leaves
    none, the last one that adds anything."""
    first = (cumulated <= wanted[:, None]).sum(dim=1)
    last = (cumulated < cumulated[:, -1:]).sum(dim=1)
    return torch.minimum(first, last)


def truncate(logprobs: Tensor, top_k: int, top_p: float) -> Tensor:
    """Log-probabilities [lines, choices], -inf but for the `top_k` likeliest (0: all) of each line, and of these the
    smallest set of mass `top_p`."""
    if top_k and top_k < logprobs.shape[1]:
        logprobs = logprobs.masked_fill(logprobs < logprobs.topk(top_k).values[:, -1:], float("-inf"))
    if top_p < 1:
        ordered, order = logprobs.softmax(dim=1).sort(dim=1, descending=True)
        beyond = ordered.cumsum(1) - ordered >= top_p
        logprobs = logprobs.masked_fill(beyond.gather(1, order.argsort(dim=1)), float("-inf"))
    return logprobs
