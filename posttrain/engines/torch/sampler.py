"""Sampling by continuous batching: requests join as slots come free, and every step feeds all rows at once.

Each distinct prompt is prefilled once, however many completions it gets.  A completion ends on the weights it
began with only because the engine never trains while one is under way in the same adapter (engine.py).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch.cache import SlotCache, Trunk, TrunkCache
from posttrain.engines.torch.constraints import Constraint
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.types import Completion, Sampling, StopReason

REBUILD = 128
"""A cached trunk is replaced only by one that saves this many more tokens."""

MOST_ROWS = 64
"""Completions written at the same time."""


@dataclass(eq=False)
class Writing:
    """A completion under way."""

    prompt: tuple[int, ...]
    sampling: Sampling
    adapter: str
    version: int
    constraint: Constraint | None
    generator: torch.Generator
    done: Callable[[Completion], None]
    on_text: Callable[[str], None] | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chosen: list[bool] = field(default_factory=list)
    log_confidence: float = 0.0
    pending: list[int] = field(default_factory=list)  # written, but not yet fed to the model
    trunk: Trunk | None = None
    in_slot: int = 0  # tokens of this completion in its slot
    shown: int = 0  # characters already streamed
    cancelled: bool = False


class Sampler:
    """Writes completions for `network` (anything with `prefill`, `feed`, `detokenise`: see engine.Network)."""

    def __init__(self, network: Any, stop_tokens: frozenset[int]) -> None:
        self.network, self.stop_tokens = network, stop_tokens
        self.waiting: deque[Writing] = deque()
        self.rows: list[Writing] = []
        self.slots, self.trunks = SlotCache(), TrunkCache()

    @property
    def busy(self) -> bool:
        return bool(self.rows or self.waiting)

    def writes_with(self, adapter: str) -> bool:
        """Whether a completion of this adapter is waiting or under way."""
        return any(row.adapter == adapter for row in (*self.rows, *self.waiting))

    @torch.inference_mode()
    def step(self) -> None:
        """Admits what fits, then writes one more token (and whatever it forces) in every row."""
        self._drop_cancelled()
        if self.waiting and len(self.rows) < MOST_ROWS:
            self._admit()
        if not self.rows:
            self.slots.release()
            return
        # rows of one adapter lie together, so that each adapter acts on one span
        order = sorted(range(len(self.rows)), key=lambda i: self.rows[i].adapter)
        if order != list(range(len(self.rows))):
            self._reorder(order)
        counts = [len(row.pending) for row in self.rows]
        starts = [row.in_slot for row in self.rows]
        capacity = max(start + count for start, count in zip(starts, counts, strict=True))
        self.slots.reserve(len(self.rows), capacity, self.slots.layers)
        layout = DecodingLayout(self.slots, starts, counts, [row.trunk for row in self.rows], self.network.device)
        hidden = self.network.feed([token for row in self.rows for token in row.pending], layout,
                                   [(row.adapter, count) for row, count in zip(self.rows, counts, strict=True)])
        last = torch.tensor(counts, device=hidden.device).cumsum(0) - 1
        for row in self.rows:
            row.in_slot += len(row.pending)
            row.pending = []
        self._write(self.rows, self.network.head(hidden[last]))
        self._retire()

    def _admit(self) -> None:
        batch: list[Writing] = []
        adapter = self.waiting[0].adapter
        while self.waiting and len(self.rows) + len(batch) < MOST_ROWS and self.waiting[0].adapter == adapter:
            batch.append(self.waiting.popleft())
        owner = (adapter, batch[0].version)
        for row in batch:
            row.pending = row.constraint.forced() if row.constraint else []
            row.tokens += row.pending
            row.logprobs += [0.0] * len(row.pending)
            row.chosen += [False] * len(row.pending)
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
        self._write(batch, self.network.head(hidden)[[number[(*row.prompt, *row.tokens)] for row in batch]])
        self._retire()

    def _trunk(self, owner: tuple[str, int], prompts: list[tuple[int, ...]]) -> Trunk | None:
        shared = self.trunks.worth_caching(owner, prompts)
        found = [self.trunks.find(owner, prompt) for prompt in prompts]
        if found[0] is not None and all(trunk is found[0] for trunk in found) and len(found[0].tokens) >= shared - REBUILD:
            return found[0]
        if not shared:
            return None
        tokens = prompts[0][:shared]
        _, keys_values = self.network.prefill([tokens], owner[0], None)
        trunk = Trunk(tokens, [layer[0] for layer in keys_values])
        self.trunks.add(owner, trunk)
        return trunk

    def _write(self, rows: Sequence[Writing], logits: Tensor) -> None:
        """Samples the next token of each row from its logits [rows, vocabulary], and what that token forces."""
        temperatures = torch.tensor([row.sampling.temperature or 1.0 for row in rows], device=logits.device)
        logprobs = (logits.float() / temperatures[:, None]).log_softmax(dim=1)
        for row, logprob in zip(rows, logprobs, strict=True):
            token, confidence = choose(logprob, row)
            row.tokens.append(token)
            row.logprobs.append(float(logprob[token]))
            row.chosen.append(True)
            row.log_confidence += confidence
            row.pending = [token]
            if row.constraint and token not in self.stop_tokens:
                row.constraint.accept(token)
                forced = row.constraint.forced()
                row.tokens += forced
                row.logprobs += [0.0] * len(forced)
                row.chosen += [False] * len(forced)
                row.pending += forced

    def _retire(self) -> None:
        """Takes finished rows out, moving the last row into the freed slot."""
        for i in reversed(range(len(self.rows))):
            row = self.rows[i]
            reason, text = self._finished(row)
            if row.on_text:
                ready = len(text) if reason else len(text) - _held_back(text, row.sampling.stop)
                if ready > row.shown:
                    row.on_text(text[row.shown:ready])
                    row.shown = ready
            if reason:
                last = len(self.rows) - 1
                if i != last:
                    self.slots.move(last, i, self.rows[last].in_slot)
                    self.rows[i] = self.rows[last]
                self.rows.pop()
                row.done(self._completion(row, text, reason))

    def _finished(self, row: Writing) -> tuple[StopReason | None, str]:
        end = next((i for i, token in enumerate(row.tokens) if token in self.stop_tokens), None)
        if end is not None:
            _truncate(row, end + 1)
            return "stop", self.network.detokenise(row.tokens[:-1])
        limit = row.sampling.max_tokens
        reason: StopReason | None = None
        if len(row.tokens) >= limit:
            _truncate(row, limit)
            reason = "length"
        if not (reason or row.on_text or row.sampling.stop):
            return None, ""
        text = self.network.detokenise(row.tokens)
        cuts = [text.find(stop) for stop in row.sampling.stop if stop in text]
        return ("stop", text[:min(cuts)]) if cuts else (reason, text)

    def _completion(self, row: Writing, text: str, reason: StopReason) -> Completion:
        confidence = float(torch.tensor(row.log_confidence).exp())
        return Completion(text=text, stop_reason=reason, tokens=tuple(row.tokens), logprobs=tuple(row.logprobs),
                          chosen=tuple(row.chosen), confidence=confidence, version=row.version, prompt=row.prompt,
                          prompt_tokens=len(row.prompt), completion_tokens=len(row.tokens))

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
            keys[:len(order)] = keys[index]
            values[:len(order)] = values[index]
            self.slots.layers[layer] = (keys, values)
        self.rows = [self.rows[i] for i in order]


def choose(logprob: Tensor, row: Writing) -> tuple[int, float]:
    """The next token from log-probabilities [vocabulary]: constraint, then top-k, then top-p, then the draw.

    Also gives the log-probability of the choice among what the constraint allowed.
    """
    if row.constraint:
        allowed = row.constraint.allowed(logprob.shape[0]).to(logprob.device)
        logprob = logprob.masked_fill(~allowed, float("-inf")).log_softmax(dim=0)
    if row.sampling.temperature == 0:
        token = int(logprob.argmax())
        return token, float(logprob[token])
    kept = truncate(logprob, row.sampling.top_k, row.sampling.top_p)
    # inverse transform: one random number per token, whatever the size of the vocabulary
    mass = kept.double().exp().cumsum(dim=0)
    point = torch.rand((), generator=row.generator, dtype=torch.float64).to(mass.device) * mass[-1]
    token = int(torch.searchsorted(mass, point, right=True))
    return token, float(logprob[token])


def truncate(logprob: Tensor, top_k: int, top_p: float) -> Tensor:
    """Sets to -inf all but the `top_k` likeliest (0: all), then all but the smallest set of mass `top_p`."""
    if top_k and top_k < logprob.shape[0]:
        logprob = logprob.masked_fill(logprob < logprob.topk(top_k).values[-1], float("-inf"))
    if top_p < 1:
        ordered, order = logprob.softmax(dim=0).sort(descending=True)
        beyond = order[ordered.cumsum(0) - ordered >= top_p]
        logprob = logprob.index_fill(0, beyond, float("-inf"))
    return logprob


def generator_for(sampling: Sampling, prompt: Sequence[int], number: int) -> torch.Generator:
    """The random stream of completion `number` of a prompt: the same whatever else is in the batch."""
    digest = hashlib.sha256(f"{sampling.seed}:{number}:{','.join(map(str, prompt))}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _truncate(row: Writing, length: int) -> None:
    del row.tokens[length:], row.logprobs[length:], row.chosen[length:]


def _held_back(text: str, stops: Sequence[str]) -> int:
    """How many last characters may yet change (half a character) or turn out to begin a stop string."""
    if text.endswith("�"):
        return len(text) - len(text.rstrip("�"))
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
