"""Sampling by posttrain.   python posttrain_sampling.py PROMPTS.json PRECISION"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from _posttrain import ENGINE, THREADS, counting
from _worker import serve, stopwatch

from posttrain.engines.torch.adapters import BASE
from posttrain.types import Sampling

PROMPTS = [tuple(prompt) for prompt in json.loads(Path(sys.argv[1]).read_text())]
ENGINE.network.bank.precision = sys.argv[2]  # type: ignore[assignment]
ENGINE.sampler.stop_tokens = frozenset()  # completions of one length


def start() -> dict[str, Any]:
    return {"model": str(ENGINE.source)}


def sample(prompts: int, group_size: int, tokens: int, temperature: float) -> dict[str, Any]:
    """Completions of so many tokens, `group_size` of each prompt.

    What an earlier turn wrote, which is the same, must not be known: it would be guessed.
    """
    ENGINE.thread.submit(partial(ENGINE.sampler.begin_afresh, BASE)).result()
    sampling = Sampling(max_tokens=tokens, temperature=temperature)
    with stopwatch() as taken, counting() as counts:
        groups = asyncio.run(ENGINE.base().sample(PROMPTS[:prompts], n=group_size, sampling=sampling))
    completions = [completion.tokens for group in groups for completion in group]
    return taken | counts | {
        "completions": completions if temperature == 0 else [],
        "trained_tokens": sum(map(len, completions)),
        "threads": THREADS,
    }


serve({"start": start, "sample": sample})
