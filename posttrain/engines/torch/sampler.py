"""Sampling by continuous batching: requests join as slots come free, and every step feeds all rows at once.

Each distinct prompt is prefilled once, however many completions it gets.  A completion ends on the weights it
began with only because those of an adapter never change while one is under way (thread.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.cache import SlotCache, Trunk, TrunkCache
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.forest import cut
from posttrain.engines.writing import Writing
from posttrain.types import Completion, StopReason

REBUILD = 128
"""A cached trunk is replaced only by one that saves this many more tokens."""

MOST_ROWS = 128
"""Completions written at the same time."""


@dataclass(eq=False, kw_only=True)
class Slotted(Writing):
    """A completion under way, and where its keys and values are: row i of the sampler lives in slot i."""

    adapter: str
    done: Callable[[Completion | BaseException], None]
    on_text: Callable[[str], None] | None = None
    version: int = 0  # of the weights it is written with
    pending: list[int] = field(default_factory=list)  # written, but not yet fed to the model
    trunk: Trunk | None = None
    in_slot: int = 0  # tokens in the slot
    shown: int = 0  # characters already streamed
    cancelled: bool = False


class Sampler:
    """Writes completions for `network` (anything with `prefill`, `feed`, `head`, `detokenise` and a `bank` of adapters:
    see network.Network).  At most about `prefill_tokens` are prefilled in one call."""

    def __init__(self, network: Any, stop_tokens: frozenset[int], prefill_tokens: int) -> None:
        self.network, self.stop_tokens, self.prefill_tokens = network, stop_tokens, prefill_tokens
        self.waiting: deque[Slotted] = deque()
        self.admitting: list[Slotted] = []
        self.rows: list[Slotted] = []
        self.slots, self.trunks = SlotCache(), TrunkCache()

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

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

    def fail(self, error: BaseException) -> None:
        """Ends the completions that a failed step concerns: those it was admitting, which are the last of the rows by
        now or none of them yet; else all."""
        if not self.admitting:
            self.fail_all(error)
            return
        failed, self.admitting = self.admitting, []
        self.rows = [row for row in self.rows if row not in failed]
        for row in failed:
            row.done(error)

    def fail_all(self, error: BaseException) -> None:
        """Ends all completions."""
        failed = list(self.completions())
        self.rows, self.admitting, self.waiting = [], [], deque()
        for row in failed:
            row.done(error)

    @torch.inference_mode()
    def step(self, held: Collection[str] = ()) -> None:
        """Admits what fits, but none of the adapters in `held`; then writes one more token (and whatever it forces) in
        every row."""
        self._drop_cancelled()
        self._choose(held)
        if self.admitting:
            self._admit(self.admitting)
            self.admitting = []
        if self.rows:
            self._decode()
        else:
            self.slots.release()

    def _decode(self) -> None:
        # rows of one adapter lie together, so that each adapter acts on one span
        order = sorted(range(len(self.rows)), key=lambda i: self.rows[i].adapter)
        if order != list(range(len(self.rows))):
            self._reorder(order)
        counts = [len(row.pending) for row in self.rows]
        starts = [row.in_slot for row in self.rows]
        capacity = max(start + count for start, count in zip(starts, counts, strict=True))
        self.slots.reserve(len(self.rows), capacity, self.slots.layers)
        layout = DecodingLayout(self.slots, starts, counts, [row.trunk for row in self.rows], self.network.device)
        hidden = self.network.feed(
            [token for row in self.rows for token in row.pending],
            layout,
            [(row.adapter, count) for row, count in zip(self.rows, counts, strict=True)],
        )
        last = torch.tensor(counts, device=hidden.device).cumsum(0) - 1
        for row in self.rows:
            row.in_slot += len(row.pending)
            row.pending = []
        self._write(self.rows, self.network.head(hidden[last]))
        self._retire()

    def _choose(self, held: Collection[str]) -> None:
        """Moves to `admitting` what comes next: of one adapter, as many as there are slots for, and as many prompts as
        may be prefilled in one call."""
        free = list(islice((row for row in self.waiting if row.adapter not in held), MOST_ROWS - len(self.rows)))
        if not free:
            return
        ready = list(takewhile(lambda row: row.adapter == free[0].adapter, free))
        prompts = list(dict.fromkeys(row.prompt for row in ready))
        fitting = {prompts[i] for i in next(cut([[prompt] for prompt in prompts], self.prefill_tokens))}
        self.admitting = [row for row in ready if row.prompt in fitting]
        chosen = set(self.admitting)
        self.waiting = deque(row for row in self.waiting if row not in chosen)

    def _admit(self, batch: Sequence[Slotted]) -> None:
        """Prefills the prompts of one adapter, and writes the first token of each completion."""
        adapter = batch[0].adapter
        weights = self.network.bank.get(adapter) if adapter else None
        owner = (adapter, weights.stamp if weights else 0)
        for row in batch:
            row.version = weights.version if weights else 0
            row.pending = row.force()
        # what is forced from the start is prefilled with the prompt
        prompts = list(dict.fromkeys((*row.prompt, *row.pending) for row in batch))
        trunk = self._trunk(owner, prompts)
        skip = len(trunk.tokens) if trunk else 0
        hidden, keys_values = self.network.prefill([prompt[skip:] for prompt in prompts], adapter, trunk)
        longest = max(len(prompt) for prompt in prompts) - skip
        self.slots.reserve(len(self.rows) + len(batch), longest, [layer[0] for layer in keys_values])
        number = {prompt: i for i, prompt in enumerate(prompts)}
        for row in batch:
            i = number[(*row.prompt, *row.pending)]
            for layer, per_prompt in enumerate(keys_values):
                self.slots.write(len(self.rows), layer, *(tensor[0] for tensor in per_prompt[i]))
            row.trunk, row.in_slot = trunk, len(prompts[i]) - skip
            row.pending = []
            self.rows.append(row)
        open_rows = [row for row in batch if not self.stop_tokens.intersection(row.tokens)]
        self._write(open_rows, self.network.head(hidden)[[number[(*row.prompt, *row.tokens)] for row in open_rows]])
        self._retire()

    def _trunk(self, owner: tuple[str, int], prompts: list[tuple[int, ...]]) -> Trunk | None:
        shared = self.trunks.worth_caching(owner, prompts)
        found = [self.trunks.find(owner, prompt) for prompt in prompts]
        if _all_same(found) and found[0] is not None and len(found[0].tokens) >= shared - REBUILD:
            return found[0]
        if not shared:
            return None
        tokens = prompts[0][:shared]
        _, keys_values = self.network.prefill([tokens], owner[0], None)
        trunk = Trunk(tokens, [layer[0] for layer in keys_values])
        self.trunks.add(owner, trunk)
        return trunk

    def _write(self, rows: Sequence[Slotted], logits: Tensor) -> None:
        """Samples the next token of each row from its logits [rows, vocabulary], and what that token forces."""
        temperatures = torch.tensor([row.sampling.temperature or 1.0 for row in rows], device=logits.device)
        logprobs = (logits.float() / temperatures[:, None]).log_softmax(dim=1)
        for row, logprob in zip(rows, logprobs, strict=True):
            row.pending = row.take(logprob, self.stop_tokens)

    def _retire(self) -> None:
        """Takes finished rows out, moving the last row into the freed slot."""
        for i in reversed(range(len(self.rows))):
            row = self.rows[i]
            reason, text = self._finished(row)
            if row.on_text:
                ready = len(text) if reason else len(text) - _held_back(text, row.sampling.stop)
                if ready > row.shown:
                    row.on_text(text[row.shown : ready])
                    row.shown = ready
            if reason:
                last = len(self.rows) - 1
                if i != last:
                    self.slots.move(last, i, self.rows[last].in_slot)
                    self.rows[i] = self.rows[last]
                self.rows.pop()
                row.done(self._completion(row, text, reason))

    def _finished(self, row: Slotted) -> tuple[StopReason | None, str]:
        reason = row.ended(self.stop_tokens)
        if reason == "stop":
            return "stop", self.network.detokenise(row.tokens[:-1])
        if not (reason or row.on_text or row.sampling.stop):
            return None, ""
        text = self.network.detokenise(row.tokens)
        cuts = [text.find(stop) for stop in row.sampling.stop if stop in text]
        return ("stop", text[: min(cuts)]) if cuts else (reason, text)

    def _completion(self, row: Slotted, text: str, reason: StopReason) -> Completion:
        confidence = float(torch.tensor(row.log_confidence).exp())
        return Completion(
            text=text,
            stop_reason=reason,
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            chosen=tuple(row.chosen),
            confidence=confidence,
            version=row.version,
            prompt=row.prompt,
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
        )

    def _drop_cancelled(self) -> None:
        self.waiting = deque(row for row in self.waiting if not row.cancelled)
        for i in reversed(range(len(self.rows))):
            if self.rows[i].cancelled:
                self.slots.move(len(self.rows) - 1, i, self.rows[-1].in_slot)
                self.rows[i] = self.rows[-1]
                self.rows.pop()

    def _reorder(self, order: list[int]) -> None:
        for layer, (keys, values) in enumerate(self.slots.layers):
            index = torch.tensor(order, device=keys.device)
            keys[: len(order)] = keys[index]
            values[: len(order)] = values[index]
            self.slots.layers[layer] = (keys, values)
        self.rows = [self.rows[i] for i in order]


def _all_same(trunks: Sequence[Trunk | None]) -> bool:
    return all(trunk is trunks[0] for trunk in trunks)


def _held_back(text: str, stops: Sequence[str]) -> int:
    """How many last characters may yet change (half a character) or turn out to begin a stop string."""
    whole = text.rstrip("\ufffd")
    begun = max((n for stop in stops for n in range(1, len(stop)) if whole.endswith(stop[:n])), default=0)
    return len(text) - len(whole) + begun
