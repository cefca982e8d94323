"""Completions that have written the same so far, and are computed as one until they part.

A group of answers to one prompt begins alike and often goes on alike: a label is settled by its first token, votes
agree, all groups are sure of some tokens.  Such completions share a *stem*: its keys and values are stored once, and
its next token is computed once; each completion draws its own from it.  With it are fed guesses at the tokens after it
(drafts.py), so that completions may part at any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from posttrain.engines.torch.attention import KeysValues
from posttrain.engines.torch.cache import Room, SlotCache, Trunk, length, roomy, worth_sharing
from posttrain.engines.torch.drafts import Successors
from posttrain.engines.torch.forest import SHORTEST_SHARED
from posttrain.engines.writing import Writing
from posttrain.types import Completion, Tokens

WORTH_SHARING = 512
"""Tokens of prompts that the completions of a group would each hold, and read in every step, beside the first, less
what is copied of a prefix that all prompts share: from so many on they share them, for a few more operations."""


@dataclass(eq=False, kw_only=True)
class Slotted(Writing):
    """A completion that waits or is under way."""

    adapter: str
    done: Callable[[Completion | BaseException], None]
    on_text: Callable[[str], None] | None = None
    version: int = 0  # of the weights it is written with
    shown: int = 0  # characters already streamed
    cancelled: bool = False


@dataclass(eq=False)
class Stem:
    """What `rows` have in common: the prompt beyond its trunk, and all that they have written."""

    adapter: str
    trunk: Trunk | None
    rows: list[Slotted]
    in_slot: int = 0  # tokens of it in its slot
    pending: list[int] = field(default_factory=list)  # written, but not yet fed to the model
    copyable: Successors = field(default_factory=dict)
    draft: list[int] = field(default_factory=list)  # fed behind what is pending, though nobody has written it yet

    @property
    def fed(self) -> int:
        """Tokens of it in a step."""
        return len(self.pending) + len(self.draft)

    @property
    def left(self) -> int:
        """Tokens that may yet be written by the row that may write most."""
        return max((row.sampling.max_tokens - len(row.tokens) for row in self.rows), default=0)

    @property
    def longest(self) -> int:
        """Tokens that a slot of it may have to hold before its rows end."""
        return self.in_slot + len(self.pending) + self.left

    @property
    def deserves_trunk(self) -> bool:
        """Whether its completions had better share what it has in its slot."""
        return (len(self.rows) - 1) * self.in_slot - length(self.trunk) >= WORTH_SHARING

    def fork(self, rows: list[Slotted], in_slot: int, pending: Sequence[int]) -> Stem:
        """That of some of its rows, which have parted from the others."""
        return Stem(self.adapter, self.trunk, rows, in_slot, list(pending), self.copyable)


def apart(stems: Sequence[Stem], read: Sequence[Sequence[int]]) -> bool:
    """Whether they are of one adapter, share nothing of what is read of each, and deserve no trunks."""
    begin = {tuple(tokens[:SHORTEST_SHARED]) for tokens in read}
    alone = not any(stem.deserves_trunk for stem in stems)
    return alone and len(begin) == len(stems) and len({stem.adapter for stem in stems}) == 1


class Parting(NamedTuple):
    """How a row has gone on in a step: past so many tokens of its stem's draft, and then by these."""

    row: Slotted
    passed: int
    tokens: Tokens


class Stems:
    """The stems under way.  Stem i lives in slot i."""

    def __init__(self) -> None:
        self.all: list[Stem] = []
        self.slots = SlotCache()

    @property
    def rows(self) -> list[Slotted]:
        return [row for stem in self.all for row in stem.rows]

    @property
    def longest(self) -> int:
        """Tokens that the slots may have to hold each before all rows end."""
        return max((stem.longest for stem in self.all), default=0)

    def admit(self, stems: Sequence[Stem], coming: int, in_slots: Sequence[Sequence[KeysValues]]) -> None:
        """Takes in stems whose slots begin with these keys and values of every layer; so many more will come."""
        longest = max(layers[0][0].shape[2] for layers in in_slots)
        slots, first = self.room_for(stems, coming, longest, in_slots[0])
        for number, layers in enumerate(in_slots, first):
            for layer, (keys, values) in enumerate(layers):
                slots.write(number, layer, keys[0], values[0])
        self.all += stems

    def room_for(self, stems: Sequence[Stem], coming: int, longest: int, like: Sequence[KeysValues]) -> Room:
        """Slots for them, of which so many tokens are written now, with keys and values like these; and, if they have
        to grow, for those that will come: else all that is in them would be copied again."""
        first = len(self.all)
        needed, capacity = first + len(stems), roomy(longest, max(stem.longest for stem in stems))
        if needed > self.slots.slots:
            needed += coming
        self.slots.reserve(needed, capacity, like)
        return Room(self.slots, first)

    def drop(self, leaves: Callable[[Slotted], bool]) -> None:
        """Takes out the rows that leave; the last stems move into the slots of those that have no more."""
        for stem in self.all:
            stem.rows = [row for row in stem.rows if not leaves(row)]
        left = sum(bool(stem.rows) for stem in self.all)
        free = [i for i in range(left) if not self.all[i].rows]
        last = [i for i in range(left, len(self.all)) if self.all[i].rows]
        if last:
            self.slots.copy(last, free, max(self.all[i].in_slot for i in last))
        for i, j in zip(free, last, strict=True):
            self.all[i] = self.all[j]
        del self.all[left:]

    def sort(self) -> None:
        """Lays the stems of one adapter together, so that each adapter acts on one span."""
        order = sorted(range(len(self.all)), key=lambda i: self.all[i].adapter)
        if order != list(range(len(self.all))):
            self.slots.copy(order, list(range(len(order))), max(stem.in_slot for stem in self.all))
            self.all = [self.all[i] for i in order]

    def branch(self, stems: Sequence[Stem], written: Sequence[Sequence[Parting]]) -> None:
        """Goes on with what the rows of each stem have written, and gives a stem of their own to those that part.

        What is pending and the draft are in the slots now.  Rows that are not in `written` have ended.
        """
        number = {stem: i for i, stem in enumerate(self.all)}
        sources, parted = [], []
        for stem, partings in zip(stems, written, strict=True):
            alike: dict[tuple[int, Tokens], list[Slotted]] = {}
            for row, passed, tokens in partings:
                alike.setdefault((passed, tokens), []).append(row)
            pieces = [
                stem.fork(rows, stem.in_slot + len(stem.pending) + passed, tokens)
                for (passed, tokens), rows in alike.items()
            ]
            stem.rows = []
            if pieces:
                self.all[number[stem]] = pieces[0]
                parted += pieces[1:]
                sources += [number[stem]] * len(pieces[1:])
        if parted:
            first = len(self.all)
            self.all += parted
            if (needed := len(self.all)) > self.slots.slots:  # with some to spare: where a few have parted, more will
                self.slots.reserve(max(needed, min(len(self.rows), needed * 3 // 2)), 0)
            places = list(range(first, len(self.all)))
            self.slots.copy(sources, places, max(stem.in_slot for stem in parted))
        self.drop(lambda _: False)


def shared_prefixes(rows: Sequence[Slotted]) -> dict[str, int]:
    """Tokens of a trunk that the prompts of each adapter would have in common."""
    prompts: dict[str, dict[Tokens, None]] = {}
    for row in rows:
        prompts.setdefault(row.adapter, {})[row.prompt] = None
    return {adapter: worth_sharing(list(own)) if len(own) > 1 else 0 for adapter, own in prompts.items()}
