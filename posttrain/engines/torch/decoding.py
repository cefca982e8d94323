"""One decoding step as an attention layout: every completion under way feeds its next token(s) at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from posttrain.engines.torch.attention import KeysValues
from posttrain.engines.torch.cache import SlotCache, Trunk, length
from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.merged_attention import Seen, attend_to_parts
from posttrain.engines.torch.native.attention import Part, Parts, Source, attend, suits_attention
from posttrain.engines.torch.native.decoder import Place


class DecodingLayout:
    """Row r feeds `counts[r]` tokens, the first of which has slot position `starts[r]` and sees trunk `trunks[r]`.

    Row r lives in slot `first` + r.  Rows that feed fewer tokens than the most are padded inside the attention alone.
    """

    def __init__(
        self,
        slots: SlotCache,
        first: int,
        starts: Sequence[int],
        counts: Sequence[int],
        trunks: Sequence[Trunk | None],
        device: torch.device,
    ) -> None:
        self.slots, self.first, self.rows, self.most = slots, first, len(starts), max(counts)
        pairs = [(row, step) for row, count in enumerate(counts) for step in range(count)]
        self.row = torch.tensor([row for row, _ in pairs], device=device)
        self.step = torch.tensor([step for _, step in pairs], device=device)
        self.slot_position = torch.tensor(starts, device=device)[self.row] + self.step
        self.trunk_lengths = torch.tensor([length(trunk) for trunk in trunks], device=device)
        self.positions = (self.slot_position + self.trunk_lengths[self.row])[None]
        self.used = int(self.slot_position.max()) + 1
        self.ragged = self.most > 1
        self.starts, self.trunks = starts, trunks
        self._queries = list(pairwise(accumulate(counts, initial=0)))
        self._parts: dict[int, tuple[Parts, list[Parts], Tensor]] = {}
        groups: dict[int, tuple[Trunk, list[int]]] = {}
        for row, trunk in enumerate(trunks):
            if trunk:
                groups.setdefault(id(trunk), (trunk, []))[1].append(row)
        self.groups = [(trunk, self._index(rows, device)) for trunk, rows in groups.values()]
        self.longest_trunk = max((len(trunk.tokens) for trunk, _ in self.groups), default=0)
        steps = torch.arange(self.most, device=device)
        self._queries_at = torch.tensor(starts, device=device)[:, None] + steps  # [rows, most]
        self._masks: dict[int | None, Tensor] = {}

    def _index(self, rows: Sequence[int], device: torch.device) -> Tensor | slice:
        """Those rows as an index; all of them as one that copies nothing."""
        return slice(None) if len(rows) == self.rows else torch.tensor(rows, device=device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:
        """See attention.Layout."""
        keys, values = (cached[self.first : self.first + self.rows] for cached in self.slots.layers[layer])
        self._store(keys, values, k, v)
        if suits_attention(q, keys, values, manner):
            return self._attend_in_c(layer, q, keys, values, manner)
        if self.rows == 1 and q.device.type == "cpu":
            return self._attend_alone(layer, q, (keys, values), manner)
        heads, kv_heads, size = q.shape[1], k.shape[1], q.shape[3]
        by_token = q[0].transpose(0, 1)  # [tokens, heads, size]
        if self.ragged:
            queries = by_token.new_zeros(self.rows, self.most, heads, size)
            queries[self.row, self.step] = by_token
        else:
            queries = by_token[:, None]
        # [rows, kv heads, heads per kv head * most, size]: the queries that share keys lie together
        grouped = queries.view(self.rows, self.most, kv_heads, heads // kv_heads, size).permute(0, 2, 3, 1, 4)
        grouped = grouped.reshape(self.rows, kv_heads, -1, size) * manner.scale
        out = self._attend_grouped(layer, grouped, (keys[:, :, : self.used], values[:, :, : self.used]), manner)
        out = out.view(self.rows, heads, self.most, size).transpose(1, 2)
        flat = out[self.row, self.step] if self.ragged else out[:, 0]
        return flat.transpose(0, 1)[None]

    def _store(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor) -> None:
        """Writes keys and values [1, key-value heads, tokens, size] to their slots."""
        if self.rows == 1:
            at = slice(self.used - self.most, self.used)
            keys[:, :, at], values[:, :, at] = k, v
        else:
            keys[self.row, :, self.slot_position] = k[0].transpose(0, 1)
            values[self.row, :, self.slot_position] = v[0].transpose(0, 1)

    def _attend_in_c(self, layer: int, q: Tensor, keys: Tensor, values: Tensor, manner: Manner) -> Tensor:
        """All slots as one long run of keys, and every trunk."""
        place = self._place(layer, keys, values)
        return manner.drain(*attend(q, place.sources, manner))[0]

    def places(self, layers: int, heads: int, size: int) -> list[Place]:  # noqa: ARG002
        """See native_decoder.Placed."""
        rows = slice(self.first, self.first + self.rows)
        return [self._place(layer, keys[rows], values[rows]) for layer, (keys, values) in enumerate(self.slots.layers)]

    def _place(self, layer: int, keys: Tensor, values: Tensor) -> Place:
        """All slots as one long run of keys, and what is seen in it and in every trunk."""
        rows, heads, capacity, size = keys.shape
        apart = heads * capacity
        shape, strides = (1, heads, (rows - 1) * apart + capacity, size), (0, capacity * size, size, 1)
        keys, values = keys.as_strided(shape, strides), values.as_strided(shape, strides)
        own, of_trunks, at = self._found_parts(apart)
        sources = [Source(keys, values, own)]
        sources += [Source(*self.groups[i][0].layers[layer], parts) for i, parts in enumerate(of_trunks)]
        return Place(keys, values, at, sources)

    def _found_parts(self, apart: int) -> tuple[Parts, list[Parts], Tensor]:
        """Who sees what, in slots that begin so many keys apart and in every trunk, and where in those slots a token
        goes; the same in all layers that are alike."""
        if apart not in self._parts:
            of_trunks = [self._parts_of(trunk) for trunk, _ in self.groups]
            self._parts[apart] = self._own_parts(apart), of_trunks, self.row * apart + self.slot_position
        return self._parts[apart]

    def _own_parts(self, apart: int) -> Parts:
        """Each row sees its slot; these begin so many keys apart."""
        found = []
        for row, (first, end) in enumerate(self._queries):
            key, start, before = row * apart, self.starts[row], length(self.trunks[row])
            found.append(Part(first, end, key, key + start + end - first, start + 1, before))
        return Parts(found, self.positions[0])

    def _parts_of(self, trunk: Trunk) -> Parts:
        """The rows of a trunk see all of it."""
        runs: list[list[int]] = []
        for own, (first, end) in zip(self.trunks, self._queries, strict=True):
            if own is trunk and runs and runs[-1][1] == first:
                runs[-1][1] = end
            elif own is trunk:
                runs.append([first, end])
        size = len(trunk.tokens)
        return Parts([Part(first, end, 0, size, size, 0) for first, end in runs], self.positions[0])

    def _attend_alone(self, layer: int, q: Tensor, cached: KeysValues, manner: Manner) -> Tensor:
        """A single row: its keys lie as the attention kernel wants them, and every operation less is felt."""
        mask = None  # a token that comes last sees all there is
        if self.most > 1 or manner.window is not None:
            mask = self._mask(manner.window, q.dtype, 1)[0, 0]
        keys, values = (room[:, :, : self.used] for room in cached)
        parts = [Seen(keys, values, None if mask is None else mask[:, self.longest_trunk :])]
        for trunk, _ in self.groups:
            parts.append(Seen(*trunk.layers[layer], None if mask is None else mask[:, : self.longest_trunk]))
        together = q
        if mask is None:  # heads that share keys are as several queries of one head: keys are read once for them
            together = q.view(1, keys.shape[1], -1, q.shape[3])
        out, total = attend_to_parts(together, parts, manner)
        return manner.drain(out.reshape(q.shape), total.reshape(q.shape[:3]))[0]

    def _attend_grouped(self, layer: int, queries: Tensor, own: KeysValues, manner: Manner) -> Tensor:
        """One softmax over the trunk's keys and the slot's own."""
        scores = manner.bend(queries @ own[0].transpose(2, 3))
        if self.groups:
            trunk_scores = scores.new_full((*scores.shape[:3], self.longest_trunk), float("-inf"))
            for trunk, rows in self.groups:
                shared = trunk.layers[layer][0][0]  # [kv heads, trunk, size]
                beside = manner.bend(_together(queries[rows], shared.transpose(1, 2)))
                trunk_scores[rows, :, :, : shared.shape[1]] = beside
            scores = torch.cat([trunk_scores, scores], dim=3)
        scores = scores + self._mask(manner.window, scores.dtype, scores.shape[2] // self.most)
        weights = scores.softmax(dim=3)
        out = weights[..., self.longest_trunk :] @ own[1]
        for trunk, rows in self.groups:
            shared = trunk.layers[layer][1][0]
            out[rows] += _together(weights[rows, :, :, : shared.shape[1]], shared)
        if manner.sinks is None:
            return out
        by_head = self.rows, -1, self.most
        return manner.drain(out.view(*by_head, out.shape[3]), scores.float().logsumexp(dim=3).view(by_head))[0]

    def _mask(self, window: int | None, dtype: torch.dtype, heads: int) -> Tensor:
        """Additive: 0 where a query sees a key, -inf elsewhere; [rows, 1, heads * most, trunk and slot keys], for so
        many heads that share keys."""
        if window not in self._masks:
            device = self._queries_at.device
            slot_keys = torch.arange(self.used, device=device)
            slot_distance = self._queries_at[:, :, None] - slot_keys
            trunk_keys = torch.arange(self.longest_trunk, device=device)
            trunk_distance = (self._queries_at + self.trunk_lengths[:, None])[:, :, None] - trunk_keys
            distance = torch.cat([trunk_distance, slot_distance], dim=2)
            hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
            additive = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, float("-inf"))
            self._masks[window] = additive[:, None].expand(-1, heads, -1, -1).reshape(self.rows, 1, -1, hidden.shape[2])
        return self._masks[window]


def _together(rows: Tensor, shared: Tensor) -> Tensor:
    """[rows, kv heads, queries, n] @ [kv heads, n, m]: what all rows share is read once, in one product per head."""
    count, heads, queries, n = rows.shape
    product = rows.transpose(0, 1).reshape(heads, count * queries, n) @ shared
    return product.view(heads, count, queries, -1).transpose(0, 1)
