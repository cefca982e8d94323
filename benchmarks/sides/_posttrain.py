"""What our sides of a comparison begin with: the engine in fp32, and an adapter that changes something."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from posttrain import losses
from posttrain.engines.torch.engine import TorchEngine
from posttrain.optimisers import Adam
from posttrain.types import Datum, LoRA

THREADS = torch.get_num_threads()  # as asked for: a library may take fewer for small work
ENGINE = TorchEngine.open(precision="float32")
RATE = 1e-3


@contextmanager
def counting() -> Iterator[dict[str, int]]:
    """Counts the tokens of each forward call within, and the rows that the output head multiplies: those of guesses and
    of sampling too."""
    network, head = ENGINE.network, ENGINE.network.output_head
    forward, rows = network.forward, head.rows
    tokens_of_calls: list[int] = []  # to append is safe on several threads
    rows_of_calls: list[int] = []
    counts: dict[str, int] = {}

    def counted_forward(tokens: Sequence[int], *rest: Any) -> Any:
        tokens_of_calls.append(len(tokens))
        return forward(tokens, *rest)

    def counted_rows(hidden: torch.Tensor) -> torch.Tensor:
        rows_of_calls.append(len(hidden))
        return rows(hidden)

    def counted_hidden(tokens: Sequence[int], *rest: Any) -> Any:
        found = hidden(tokens, *rest)
        tokens_of_calls.append(0 if found is None else len(tokens))
        return found

    decoder = network.decoder  # past which nothing goes through `forward`
    network.forward, head.rows = counted_forward, counted_rows  # type: ignore[method-assign]
    if decoder is not None:
        hidden, decoder.hidden = decoder.hidden, counted_hidden  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        network.forward, head.rows = forward, rows  # type: ignore[method-assign]
        if decoder is not None:
            decoder.hidden = hidden  # type: ignore[method-assign]
        counts.update(forwarded_tokens=sum(tokens_of_calls), head_rows=sum(rows_of_calls))


def make_start(folder: Path, data: Sequence[Datum], seed: int) -> dict[str, Any]:
    """Writes the adapter that both sides begin with: two steps from a fresh one, so that B is not zero."""

    async def make() -> None:
        policy = ENGINE.base().fork("start", LoRA(), seed=seed)
        for batch in (data[: len(data) // 2], data[len(data) // 2 :]):
            trained = float(sum(len(datum.trained) for datum in batch))
            await policy.forward_backward(batch, losses.cross_entropy, normaliser=trained)
            await policy.optim_step(Adam(RATE))
        await policy.save(folder)
        policy.drop()

    asyncio.run(make())
    return {"model": str(ENGINE.source)}
