"""Sampling by continuous batching: requests join as slots come free, and every step feeds all rows at once.

Each distinct prompt is prefilled once, however many completions it gets.  A completion ends on the weights it
began with only because those of an adapter never change while one is under way (thread.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.next_token import Drawn, draw
from posttrain.engines.torch.adapters import BASE
from posttrain.engines.torch.cache import Trunk, TrunkCache, grown, length, room, roomy
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.drafts import Drafter, successors
from posttrain.engines.torch.forest import common_prefix, cut, deal
from posttrain.engines.torch.stems import Parting, Slotted, Stem, Stems, apart, shared_prefixes
from posttrain.engines.torch.threads import stacked
from posttrain.types import Completion, StopReason, Tokens, UserError

REBUILD = 128
"""A cached trunk is replaced only by one that saves this many more tokens; and only for one that does, a prompt leaves
those it came with, as what begins with another trunk is read in another call."""

MOST_GUESSED = 384
"""Tokens guessed in one step: the logits after each are held."""

TRUNKS_SHARE = 0.5
"""Of the tokens that slots may hold: so many more, of prefixes that are kept from call to call."""

MOST_STEMS = 128
"""So many stems under way leave no room for the next prompt.  (Its completions may part, and be more stems.)"""


class Sampler:
    """Writes completions for `network` (anything with what is used of it here: see network.Network).  At most about
    `prefill_tokens` are prefilled in one call, and the keys and values of `slot_tokens` held, but for a single
    completion that needs more."""

    def __init__(self, network: Any, stop_tokens: frozenset[int], prefill_tokens: int, slot_tokens: int) -> None:
        self.network, self.stop_tokens = network, stop_tokens
        self.prefill_tokens, self.slot_tokens = prefill_tokens, slot_tokens
        self.waiting: deque[Slotted] = deque()
        self.admitting: list[Slotted] = []
        self.stems, self.trunks = Stems(), TrunkCache(int(slot_tokens * TRUNKS_SHARE))
        self.drafters: dict[str, Drafter] = {}
        self.full: int | None = None  # so many rows under way have left no room for the next

    @property
    def most_held(self) -> int:
        """Tokens whose keys and values may be held at once."""
        return self.slot_tokens + self.trunks.most_tokens + self.prefill_tokens

    @property
    def rows(self) -> list[Slotted]:
        """The completions under way."""
        return self.stems.rows

    @property
    def busy(self) -> bool:
        return bool(self.stems.all or self.waiting)

    def completions(self) -> Iterator[Slotted]:
        """All that are waiting or under way.  (Those being admitted may be among the rows already.)"""
        yield from dict.fromkeys((*self.rows, *self.admitting, *self.waiting))

    def quiet(self, adapter: str) -> bool:
        """Whether no completion of this adapter is under way; some may wait."""
        return not any(row.adapter == adapter and not row.cancelled for row in self.rows)

    def forget(self, adapter: str) -> None:
        """Ends all completions of an adapter that is no more."""
        for row in self.completions():
            if row.adapter == adapter:
                row.cancelled = True
                row.done(RuntimeError(f"policy {adapter} was dropped"))
        self.trunks.forget(adapter)
        self.drafters.pop(adapter, None)

    def begin_afresh(self, adapter: str) -> None:
        """Forgets what changes no answer but the batches in which it is computed, and so maybe its last bits: cached
        prefixes and what was learnt to guess, of an adapter and of its base."""
        for name in (adapter, BASE):
            self.trunks.forget(name)
            self.drafters.pop(name, None)
        if not self.busy:
            self.rest()
            self.full = None

    def fail(self, error: BaseException) -> None:
        """Ends the completions that a failed step concerns: those it was admitting, which are the last of the rows by
        now or none of them yet; else all."""
        if not self.admitting:
            self.fail_all(error)
            return
        failed, self.admitting = self.admitting, []
        self.stems.drop(lambda row: row in failed)
        for row in failed:
            row.done(error)

    def fail_all(self, error: BaseException) -> None:
        """Ends all completions."""
        failed = list(self.completions())
        self.stems, self.admitting, self.waiting = Stems(), [], deque()
        for row in failed:
            row.done(error)

    def rest(self) -> None:
        """Gives back the slots, which are kept for the next completions, and what is laid out for their adapters."""
        self.stems.slots.release()
        self.network.bank.groups.clear()

    @torch.inference_mode()
    def step(self, held: Collection[str] = ()) -> None:
        """Admits what fits, but none of the adapters in `held`; then writes one more token (and whatever it forces) in
        every row, and more where it was guessed."""
        self.waiting = deque(row for row in self.waiting if not row.cancelled)
        self.stems.drop(lambda row: row.cancelled)
        self._choose(held)
        if self.admitting:
            self._admit(self.admitting)
            self.admitting = []
        if self.stems.all:
            self._decode()

    def _decode(self) -> None:
        self.stems.sort()
        stems, slots, threads = list(self.stems.all), self.stems.slots, self.network.threads
        self._guess(stems)
        fed = sum(stem.fed for stem in stems)
        if free := max(0, self.network.free_tokens(fed) - fed) // len(stems):
            self._guess(stems, free)
        slots.reserve(len(stems), roomy(max(stem.in_slot + stem.fed for stem in stems), self.stems.longest))
        shares = deal([stem.fed for stem in stems], threads.most)

        def feed(calls: Sequence[Sequence[int]]) -> Tensor:
            return stacked([self._feed(call[0], [stems[i] for i in call]) for call in calls])

        calls = threads.calls(shares, apart=self.network.decodes_apart)
        self._write(stems, stacked(threads.side_by_side([partial(feed, some) for some in calls])))

    def _guess(self, stems: Sequence[Stem], free: int = 0) -> None:
        """Drafts what probably follows what is pending, and `free` tokens of each stem that may; but never more than
        may be written.

        Nothing in deterministic mode: what is guessed depends on what others have written.
        """
        if self.network.deterministic:
            return
        most = MOST_GUESSED // len(stems)
        for stem in stems:
            row, likely = stem.rows[0], len(stem.draft) if free else 0
            drafter = self.drafters.setdefault(stem.adapter, Drafter())
            stem.draft = drafter.draft(row.prompt, row.tokens, stem.copyable, min(most, stem.left - 1), likely + free)

    def _feed(self, first: int, stems: Sequence[Stem]) -> Tensor:
        """The logits [lines, vocabulary] of stems that lie in slots from `first` on: of each after what is pending, and
        after every token of its draft."""
        counts = [stem.fed for stem in stems]
        layout = DecodingLayout(
            self.stems.slots,
            first,
            [stem.in_slot for stem in stems],
            counts,
            [stem.trunk for stem in stems],
            self.network.device,
        )
        ends = accumulate(counts)
        hidden = self.network.feed(
            [token for stem in stems for token in (*stem.pending, *stem.draft)],
            layout,
            [(stem.adapter, count) for stem, count in zip(stems, counts, strict=True)],
            [i for stem, end in zip(stems, ends, strict=True) for i in range(end - 1 - len(stem.draft), end)],
        )
        return self.network.head(hidden)

    def _choose(self, held: Collection[str]) -> None:
        """Moves to `admitting` what comes next: as many as there are slots and memory for, and as many prompts as may
        be prefilled in one call."""
        room_for = MOST_STEMS - len(self.stems.all)
        if room_for <= 0 or (self.full is not None and len(self.rows) >= self.full):
            return
        self.full = None
        ready = [row for row in self.waiting if row.adapter not in held]
        if not ready:
            return
        together = self._read_together(ready, room_for)
        longest = max(self.stems.longest, *(len(row.prompt) + row.sampling.max_tokens for row in together))
        self.stems.slots.shrink(len(self.stems.all), longest)
        self.admitting = self._fitting(together)
        if self.admitting:
            chosen = set(self.admitting)
            self.waiting = deque(row for row in self.waiting if row not in chosen)
        else:
            self.full = len(self.rows)  # until one of them has ended

    def _read_together(self, rows: Sequence[Slotted], most: int) -> list[Slotted]:
        """Those of the first prompts, at most so many, that may be prefilled in one call."""
        asked = list(dict.fromkeys((row.adapter, row.prompt) for row in rows))[:most]
        numbers = {adapter: i for i, adapter in enumerate(dict.fromkeys(adapter for adapter, _ in asked))}
        # where nothing is shared, as by different adapters, sequences are told apart by what they begin with
        apart = self.network.deterministic
        sequences = [[(i if apart else numbers[adapter], *prompt)] for i, (adapter, prompt) in enumerate(asked)]
        fitting = {asked[i] for i in next(cut(sequences, self.prefill_tokens))}
        return [row for row in rows if (row.adapter, row.prompt) in fitting]

    def _fitting(self, rows: list[Slotted]) -> list[Slotted]:
        """As many of these rows, from the first on, as may have a slot of their own beside the rows under way, when all
        have written as much as they may."""
        shared = {} if self.network.deterministic else shared_prefixes(rows)
        under_way, longest = len(self.rows), max(self.stems.longest, self.stems.slots.capacity)
        left = self.slot_tokens - self._in_trunks()
        for count, row in enumerate(rows):
            longest = max(longest, len(row.prompt) - shared.get(row.adapter, 0) + row.sampling.max_tokens)
            if under_way + count and (under_way + count + 1) * room(longest) > left:
                return self._fitting(rows[:count]) if count else []  # these may share less: nothing, if one prompt
        return rows

    def _coming(self, stems: Sequence[Stem]) -> int:
        """Of the prompts that still wait, those for which there will be such slots beside those of the stems."""
        each = room(max(self.stems.slots.capacity, self.stems.longest, *(stem.longest for stem in stems)))
        slots = min((self.slot_tokens - self._in_trunks()) // each, MOST_STEMS) - len(self.stems.all) - len(stems)
        return max(0, min(slots, len({(row.adapter, row.prompt) for row in self.waiting})))

    def _in_trunks(self) -> int:
        """Tokens that groups under way hold beside their slots, each in a trunk of its own."""
        used = {id(stem.trunk): stem.trunk for stem in self.stems.all if stem.trunk}
        cached = {id(trunk) for trunk in self.trunks.trunks.values()}
        return sum(len(trunk.tokens) for key, trunk in used.items() if key not in cached)

    def _admit(self, batch: Sequence[Slotted]) -> None:
        """Prefills prompts, with guesses at what is said first, and writes the first token of each completion, and more
        where it was guessed."""
        alike: dict[tuple[str, Tokens], list[Slotted]] = {}
        for row in batch:
            row.version = self.network.bank.get(row.adapter).version if row.adapter else 0
            prompt = (*row.prompt, *row.force())  # what is forced from the start is prefilled with the prompt
            if whole := self._ended(row):
                row.done(whole)
            else:
                alike.setdefault((row.adapter, prompt), []).append(row)
        if not alike:
            return
        prompts: dict[str, list[Tokens]] = {}
        for adapter, prompt in alike:
            prompts.setdefault(adapter, []).append(prompt)
        trunks = {
            (adapter, prompt): trunk
            for adapter, own in prompts.items()
            for prompt, trunk in zip(own, self._trunks(adapter, own), strict=True)
        }
        stems: list[Stem] = []
        hidden: list[Tensor] = []
        for trunk in dict.fromkeys(trunks.values()):  # those without one together, whatever their adapters
            some = {key: rows for key, rows in alike.items() if trunks[key] is trunk}
            found, states = self._prefill(trunk, some)
            stems += found
            hidden.append(states)
        self._write(stems, self.network.head(stacked(hidden)))

    def _prefill(
        self, trunk: Trunk | None, alike: Mapping[tuple[str, Tokens], list[Slotted]]
    ) -> tuple[list[Stem], Tensor]:
        """Takes in the stems of rows by their adapter and prompt, which begins with the trunk; and the hidden states at
        the end of each prompt and after every token of its draft."""
        skip = length(trunk)
        stems = [
            Stem(adapter, trunk, rows, len(prompt) - skip, copyable=successors(prompt[skip:]))
            for (adapter, prompt), rows in alike.items()
        ]
        self._guess(stems)
        read = [(*prompt[skip:], *stem.draft) for (_, prompt), stem in zip(alike, stems, strict=True)]
        ends = [1 + len(stem.draft) for stem in stems]
        coming = self._coming(stems)
        adapters, share = [stem.adapter for stem in stems], not self.network.deterministic
        if share and self.network.decoder is not None and apart(stems, read):  # read where they will stay
            waiting = self.stems.room_for(stems, coming, max(map(len, read)), self.network.decoder.nothing_kept())
            hidden, _ = self.network.prefill(read, adapters, trunk, ends, waiting)
            self.stems.all += stems
            return stems, hidden
        hidden, keys_values = self.network.prefill(read, adapters, trunk, ends)
        in_slots = [[layer[i] for layer in keys_values] for i in range(len(stems))]
        for i, (stem, (_, prompt)) in enumerate(zip(stems, alike, strict=True)):
            if share and stem.deserves_trunk:
                stem.trunk, in_slots[i] = grown(trunk, prompt, in_slots[i])
                stem.in_slot = 0
        self.stems.admit(stems, coming, in_slots)
        return stems, hidden

    def _trunks(self, adapter: str, prompts: list[Tokens]) -> list[Trunk | None]:
        """What each prompt of an adapter begins with, if that is worth it: what all have in common, or something longer
        that is kept; never in deterministic mode, for what is read in two calls has other bits than in one."""
        if self.network.deterministic:
            return [None] * len(prompts)
        owner = (adapter, self.network.bank.get(adapter).stamp if adapter else 0)
        shared = self.trunks.worth_caching(owner, prompts)
        common = self.trunks.find(owner, prompts[0][: shared + 1] if len(prompts) > 1 else prompts[0])
        enough = max(shared, length(common)) + REBUILD
        found = [self.trunks.find(owner, prompt) for prompt in prompts]
        longer = [trunk if length(trunk) >= enough else None for trunk in found]
        if shared and not all(longer) and (common is None or length(common) < shared - REBUILD):
            common = self._grown(owner, common, prompts[0][:shared])
        return [trunk or common for trunk in longer]

    def _grown(self, owner: tuple[str, int], base: Trunk | None, tokens: Tokens) -> Trunk:
        """A trunk of these tokens, which begin with the base: only what is new is read."""
        _, keys_values = self.network.prefill([tokens[length(base) :]], [owner[0]], base, [1])
        trunk, _ = grown(base, tokens, [layer[0] for layer in keys_values])
        self.trunks.add(owner, trunk, base)
        return trunk

    def _write(self, stems: Sequence[Stem], logits: Tensor) -> None:
        """Samples the next token of each row, what that token forces, and what follows while it goes as guessed.

        logits [lines, vocabulary]: of each stem a line after what is pending, and one after every token of its draft.
        """
        written: list[list[Parting]] = [[] for _ in stems]
        ended: list[tuple[Slotted, Completion | UserError]] = []
        firsts = [0, *accumulate(1 + len(stem.draft) for stem in stems)]
        going = [(i, 0, row) for i, stem in enumerate(stems) for row in stem.rows]
        while going:
            drawn = draw(logits, [firsts[i] + passed for i, passed, _ in going], [row for _, _, row in going])
            self._learn(stems, going, drawn)
            on = []
            for (i, passed, row), each in zip(going, drawn, strict=True):
                try:
                    tokens = row.take(each, self.stop_tokens)
                except UserError as error:  # of its adapter: the others go on
                    ended.append((row, error))
                    continue
                right = common_prefix(tokens, stems[i].draft[passed:])
                if whole := self._ended(row):
                    ended.append((row, whole))
                elif right == len(tokens):
                    on.append((i, passed + right, row))
                else:
                    written[i].append(Parting(row, passed + right, tuple(tokens[right:])))
            going = on
        self.stems.branch(stems, written)
        if any(isinstance(result, UserError) for _, result in ended):
            self.stems.slots.wipe()
        for row, result in ended:  # those who wait are told when nothing is left of it
            row.done(result)

    def _learn(self, stems: Sequence[Stem], going: Sequence[tuple[int, int, Slotted]], drawn: Sequence[Drawn]) -> None:
        """Shows the drafters how a row of each stem goes on, any of which stands for the others."""
        seen = set()
        for (i, passed, row), each in zip(going, drawn, strict=True):
            if (i, passed) not in seen:
                seen.add((i, passed))
                drafter = self.drafters.setdefault(row.adapter, Drafter())
                drafter.learn(row.prompt, row.tokens, stems[i].copyable, each.token)

    def _ended(self, row: Slotted) -> Completion | None:
        """Shows what is new of a completion; the whole of it when it is at its end."""
        reason, text = self._finished(row)
        if row.on_text:
            ready = len(text) if reason else len(text) - _held_back(text, row.sampling.stop)
            if ready > row.shown:
                row.on_text(text[row.shown : ready])
                row.shown = ready
        return self._completion(row, text, reason) if reason else None

    def _finished(self, row: Slotted) -> tuple[StopReason | None, str]:
        reason = row.ended(self.stop_tokens)
        if not (reason or row.on_text or row.sampling.stop):
            return None, ""
        text = self.network.detokenise(row.tokens[:-1] if reason == "stop" else row.tokens)
        cuts = [text.find(stop) for stop in row.sampling.stop if stop in text]
        return ("stop", text[: min(cuts)]) if cuts else (reason, text)

    def _completion(self, row: Slotted, text: str, reason: StopReason) -> Completion:
        return Completion(
            text=text,
            stop_reason=reason,
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            chosen=tuple(row.chosen),
            top_logprobs=tuple(row.top_logprobs) if row.sampling.top_logprobs else (),
            confidence=float(torch.tensor(row.log_confidence).exp()),
            version=row.version,
            prompt=row.prompt,
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
        )


def _held_back(text: str, stops: Sequence[str]) -> int:
    """How many last characters may yet change (half a character) or turn out to begin a stop string."""
    whole = text.rstrip("\ufffd")
    begun = max((n for stop in stops for n in range(1, len(stop)) if whole.endswith(stop[:n])), default=0)
    return len(text) - len(whole) + begun
