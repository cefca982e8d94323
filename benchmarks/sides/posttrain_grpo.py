"""Steps of GRPO by posttrain.   python posttrain_grpo.py PROMPTS.json ADAPTER_FOLDER"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _posttrain import ENGINE, RATE, THREADS, counting, make_start
from _rewards import reward
from _worker import serve, stopwatch

from posttrain import losses
from posttrain.optimisers import Adam
from posttrain.techniques._groups import advantages
from posttrain.types import Completion, Datum, Sampling

PROMPTS, START = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
ENGINE.sampler.stop_tokens = frozenset()  # completions of one length: as many tokens are trained as by the peer


def start(seed: int) -> dict[str, Any]:
    data = [Datum(tuple(prompt), (*[0.0] * 100, *[1.0] * (len(prompt) - 100))) for prompt in PROMPTS[:8]]
    return make_start(START, data, seed)


def lesson(prompt: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float], advantage: float) -> Datum:
    """A completion as it is trained; `logprobs` are the sampler's."""
    before, count = [0.0] * len(prompt), len(tokens)
    return Datum(
        (*prompt, *tokens), (*before, *[1.0] * count), (*before, *[advantage] * count), (*before, *logprobs)
    )


def lessons(prompt: Sequence[int], group: Sequence[Completion]) -> list[Datum]:
    found = advantages([reward(completion.tokens) for completion in group])
    return [lesson(prompt, each.tokens, each.logprobs, a) for each, a in zip(group, found, strict=True)]


async def update(policy: Any, data: Sequence[Datum]) -> dict[str, float]:
    trained = float(sum(len(datum.trained) for datum in data))
    metrics = await policy.forward_backward(data, losses.clipped_policy_gradient(), normaliser=trained)
    return metrics | await policy.optim_step(Adam(RATE, max_grad_norm=1.0))


def epoch(rows: int, group_size: int, tokens: int, steps: int) -> dict[str, Any]:
    """`steps` steps from the start: completions are sampled, rewarded and learnt from."""

    async def train() -> dict[str, Any]:
        policy = ENGINE.load(START)
        every = []
        with stopwatch() as taken, counting() as counts:
            for i in range(steps):
                prompts = [tuple(prompt) for prompt in PROMPTS[i * rows : (i + 1) * rows]]
                sampling = Sampling(max_tokens=tokens, temperature=1.0, seed=i)
                groups = await policy.sample(prompts, n=group_size, sampling=sampling)
                data = [datum for pair in zip(prompts, groups, strict=True) for datum in lessons(*pair)]
                every.append(await update(policy, data))
        policy.drop()
        return taken | counts | {
            "gradient_norms": [each["gradient_norm"] for each in every],
            "trained_tokens": sum(each["trained_tokens"] for each in every),
            "threads": THREADS,
        }

    return asyncio.run(train())


def check(rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    """The gradient's norm of a step from the start on completions that the peer has sampled, with its advantages."""

    async def train() -> dict[str, Any]:
        policy = ENGINE.load(START)
        bare = [lesson(each["prompt"], each["tokens"], [0.0] * len(each["tokens"]), 1.0) for each in rollouts]
        old = await policy.logprobs(bare)
        data = [
            lesson(each["prompt"], each["tokens"], logprobs, each["advantage"])
            for each, logprobs in zip(rollouts, old, strict=True)
        ]
        metrics = await update(policy, data)
        policy.drop()
        return {"gradient_norm": metrics["gradient_norm"]}

    return asyncio.run(train())


serve({"start": start, "epoch": epoch, "check": check})
