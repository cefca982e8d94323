"""What the tests of many things at once have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import torch

from posttrain import losses
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import Datum, Message, Sampling

QUESTIONS = ["where is my order?", "I was charged twice", "the printer is down"]
PATIENCE_SECONDS = 10


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """asyncio.run, for a thread that may never answer."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE_SECONDS))


def prompts(engine: TorchEngine) -> list[Any]:
    return [engine.renderer.prompt([Message("user", question)]) for question in QUESTIONS]


def data(engine: TorchEngine, answer: str = "yes") -> list[Datum]:
    return [engine.renderer.datum([Message("user", question), Message("assistant", answer)]) for question in QUESTIONS]


async def learn(policy: TorchPolicy, answer: str, steps: int = 3) -> None:
    for _ in range(steps):
        await policy.forward_backward(data(policy.engine, answer), losses.cross_entropy, normaliser=9)
        await policy.optim_step(Adam(3e-2))


async def texts(policy: TorchPolicy, sampling: Sampling, n: int = 2, asked: Sequence[Any] = ()) -> list[list[str]]:
    return [[completion.text for completion in group]
            for group in await policy.sample(asked or prompts(policy.engine), n=n, sampling=sampling)]


def tensors(policy: TorchPolicy) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in policy.engine.network.bank.adapters[policy.adapter].parameters()]
