"""Gradients: of what one policy is to learn from, or several at once, whose adapters then act in one forward call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, groupby

import torch
from torch import Tensor

from posttrain.engines.torch import memory
from posttrain.engines.torch.adapters import Gradient
from posttrain.engines.torch.forest import cut, deal, plant, share_out
from posttrain.engines.torch.network import Network
from posttrain.engines.torch.thread import TorchThread
from posttrain.types import Datum, Loss, Metrics

Parts = Sequence[Tensor | None]
"""A gradient, parameter by parameter; None where the loss does not depend on it."""


@dataclass(eq=False)
class Lesson:
    """What one call of forward_backward hands in; data of one group stay together, and groups that begin alike meet."""

    adapter: str
    data: Sequence[Datum]
    loss: Loss
    normaliser: float
    wanted: bool = True  # no more when the call was cancelled

    def groups(self) -> list[list[Datum]]:
        keyed = [(datum.group or f"#{i}", datum) for i, datum in enumerate(self.data)]
        groups = [[datum for _, datum in members] for _, members in groupby(keyed, key=lambda pair: pair[0])]
        return sorted(groups, key=lambda members: members[0].tokens)


@dataclass(frozen=True)
class Piece:
    """The groups of a lesson that are computed in one call."""

    number: int  # of the lesson
    lesson: Lesson
    groups: Sequence[Sequence[Datum]]
    gradient: Gradient

    @property
    def data(self) -> list[Datum]:
        return list(chain(*self.groups))

    @cached_property
    def tokens(self) -> int:
        """How many are forwarded for it."""
        return len(plant([datum.tokens for datum in self.data], [self.lesson.adapter] * len(self.data)).tokens)


class Trainer:
    """Computes lessons on the engine's thread, in micro-batches of about `micro_batch_tokens`; what several lessons
    have in common is no more than `joined_tokens`."""

    def __init__(self, network: Network, thread: TorchThread, joined_tokens: int) -> None:
        self.network, self.thread, self.joined_tokens = network, thread, joined_tokens

    @cached_property
    def micro_batch_tokens(self) -> int:
        """As many as fit into the memory that is free when they are first asked for."""
        return self.thread.submit(partial(memory.trained_tokens, self.network)).result()

    async def learn(self, lessons: Sequence[Lesson]) -> list[Metrics]:
        """Adds to the gradient of each lesson's adapter, no two of which are the same; the metrics of each lesson, sums
        over its data.  When any part fails, or the call is cancelled, all gradients are what they were before.
        """
        batches = list(self._micro_batches(lessons))
        jobs = [partial(self._backward, batch) for batch in batches]
        per_batch = await self.thread.run_all([*jobs, partial(self._reach_adapters, batches)], lessons[0].adapter)
        return [_summed([found[i] for found in per_batch if i in found]) for i in range(len(lessons))]

    def _micro_batches(self, lessons: Sequence[Lesson]) -> Iterator[list[Piece]]:
        """Pieces to be computed together: of several lessons as many as fit, but one of each."""
        most = min(self.micro_batch_tokens, self.joined_tokens)
        batch: list[Piece] = []
        size = 0
        for piece in chain(*(self._pieces(number, lesson) for number, lesson in enumerate(lessons))):
            more = piece.tokens if len(lessons) > 1 else 0
            again = any(other.number == piece.number for other in batch)
            if batch and (again or size + more > most):
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += more
        yield batch

    def _pieces(self, number: int, lesson: Lesson) -> list[Piece]:
        groups = lesson.groups()
        shares = list(cut([[datum.tokens for datum in group] for group in groups], self.micro_batch_tokens))
        gradient = Gradient(len(shares))
        return [Piece(number, lesson, [groups[i] for i in share], gradient) for share in shares]

    # ---- on the thread

    def _backward(self, batch: Sequence[Piece]) -> dict[int, Metrics]:
        """The metrics by lesson of one micro-batch, whose parts are computed side by side."""
        parts = self._share_out(batch)
        done = self.network.threads.side_by_side([partial(self._backward_of_part, part) for part in parts])
        metrics = {}
        for piece in batch:
            own = [found[piece.number] for found in done if piece.number in found]
            piece.gradient.add([gradient for gradient, _ in own])
            metrics[piece.number] = _summed([metrics for _, metrics in own])
        return metrics

    def _reach_adapters(self, batches: Sequence[Sequence[Piece]]) -> dict[int, Metrics]:
        """When nothing failed, every lesson that is still wanted reaches its adapter."""
        lessons = {piece.number: piece for piece in chain(*batches)}.values()
        if not any(piece.gradient.missing for piece in lessons):
            for piece in lessons:
                if piece.lesson.wanted:
                    piece.gradient.reach(self.network.bank.get(piece.lesson.adapter))
        return {}

    def _share_out(self, batch: Sequence[Piece]) -> list[list[Piece]]:
        """A micro-batch in parts of about equal size: lessons stay whole unless there is but one."""
        most = self.network.threads.most
        if len(batch) > 1:
            return [[batch[i] for i in share] for share in deal([piece.tokens for piece in batch], most)]
        (piece,) = batch
        shares = share_out([[datum.tokens for datum in group] for group in piece.groups], most)
        return [[replace(piece, groups=[piece.groups[i] for i in share])] for share in shares]

    def _backward_of_part(self, part: Sequence[Piece]) -> dict[int, tuple[Parts, Metrics]]:
        """Gradient and metrics by lesson.  What is not finite may have spoilt its neighbours: then each by itself."""
        data = [piece.data for piece in part]
        adapters = [piece.lesson.adapter for piece, own in zip(part, data, strict=True) for _ in own]
        logprobs, forwarded = self.network.trained_logprobs(list(chain(*data)), adapters)
        left = iter(logprobs)
        losses, metrics = [], []
        for piece, own in zip(part, data, strict=True):
            lesson, of_own = piece.lesson, [next(left) for _ in own]
            total, told = lesson.loss(of_own, own)
            losses.append(total / lesson.normaliser)
            told = told | {"loss": total.item() / lesson.normaliser}
            metrics.append(told | _counted(own, forwarded[lesson.adapter]))
        parameters = [self.network.bank.get(piece.lesson.adapter).parameters() for piece in part]
        found = torch.autograd.grad(losses, list(chain(*parameters)), allow_unused=True)
        if len(part) > 1 and not _are_finite([*losses, *found]):
            alone = (self._backward_of_part([piece]) for piece in part)
            return {number: one for each in alone for number, one in each.items()}
        whole = iter(found)
        gradients = [[next(whole) for _ in own] for own in parameters]
        numbers = [piece.number for piece in part]
        return dict(zip(numbers, zip(gradients, metrics, strict=True), strict=True))


def _are_finite(tensors: Parts) -> bool:
    norm = torch.nn.utils.get_total_norm([tensor.detach() for tensor in tensors if tensor is not None])
    return bool(norm.isfinite())


def _counted(data: Sequence[Datum], forwarded: int) -> Metrics:
    return {
        "trained_tokens": float(sum(len(datum.trained) for datum in data)),
        "tokens": float(sum(len(datum.tokens) for datum in data)),
        "forwarded_tokens": float(forwarded),
    }


def _summed(parts: Sequence[Metrics]) -> Metrics:
    total: Metrics = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total
