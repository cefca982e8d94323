"""An export is proven equal to the policy it came from, or it does not exist.

It is written beside its destination, loaded from there with plain transformers and peft in fp32, and made to give
the log-probabilities and the greedy answers of the policy.  Only then does it get its name.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from posttrain.runs import disk_errors, write_json
from posttrain.types import Datum, Policy, Sampling, Tokens, UserError

TOLERANCE = 1e-3
"""Largest difference, in nats, of any token's log-probability.  fp32 in another order of sums stays below 1e-4."""

ANSWER_TOKENS = 32
"""Length of the greedy answers compared."""


@dataclass(frozen=True)
class Proof:
    """What was compared: `max_difference` in nats over all `tokens` of `sequences`, and greedy answers."""

    max_difference: float
    sequences: int
    tokens: int
    answers_equal: int
    answers: int
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        return self.max_difference <= self.tolerance and self.answers_equal == self.answers

    def __str__(self) -> str:
        return (
            f"log-probabilities differ by at most {self.max_difference:.1e} nats (allowed {self.tolerance:g}) over "
            f"{self.tokens} tokens of {self.sequences} sequences; {self.answers_equal} of {self.answers} greedy "
            "answers are equal"
        )


async def proven(
    folder: Path,
    policy: Policy,
    write: Callable[[Path], Awaitable[None]],
    read: Callable[[Path], Any],
    probes: Sequence[Datum],
    prompts: Sequence[Tokens],
) -> Proof:
    """Writes the export with `write`, reloads it with `read`, and keeps it as `folder` when it equals `policy`.

    Raises UserError when the folder is taken or the export is not equal.
    """
    if not probes or not prompts:
        raise UserError("nothing to prove the export with", place=str(folder), remedy="give some rows of the task")
    if folder.exists():
        raise UserError("exists already", place=str(folder), remedy="choose another folder, or remove this one")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_errors(partial):
            partial.mkdir(parents=True)
            await write(partial)
        proof = await compare(policy, lambda: read(partial), GenerationConfig.from_pretrained(partial), probes, prompts)
        if not proof.holds:
            raise UserError(
                f"the export is not equal to the trained policy: {proof}",
                place=str(folder),
                remedy="it was not kept; load the policy in float32 on the CPU and export again",
            )
        write_json(partial / "proof.json", {"schema": 1, **asdict(proof)})
        with disk_errors(folder):
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return proof


async def compare(
    policy: Policy,
    read: Callable[[], Any],
    generation: GenerationConfig,
    probes: Sequence[Datum],
    prompts: Sequence[Tokens],
) -> Proof:
    """The policy beside the network that `read` loads.

    All tokens are compared, not only the trained ones: of an answer learnt by heart any copy is as sure.
    """
    probes = [replace(datum, weights=(0.0, *[1.0] * (len(datum.tokens) - 1))) for datum in probes]
    expected = await policy.logprobs(probes)
    wanted = [
        completions[0].tokens
        for completions in await policy.sample(list(prompts), sampling=Sampling(max_tokens=ANSWER_TOKENS))
    ]
    return await asyncio.to_thread(_compare, read, generation, probes, expected, prompts, wanted)


@torch.inference_mode()
def _compare(
    read: Callable[[], Any],
    generation: GenerationConfig,
    probes: Sequence[Datum],
    expected: Sequence[Sequence[float]],
    prompts: Sequence[Tokens],
    wanted: Sequence[Tokens],
) -> Proof:
    network = read().eval()
    generation.max_new_tokens = ANSWER_TOKENS
    differences = [
        abs(ours - theirs)
        for datum, ours_all in zip(probes, expected, strict=True)
        for ours, theirs in zip(ours_all, _logprobs(network, datum), strict=True)
    ]
    # max() would pass over a nan
    largest = math.inf if any(map(math.isnan, differences)) else max(differences)
    equal = sum(
        _same_answer(network, generation, prompt, answer) for prompt, answer in zip(prompts, wanted, strict=True)
    )
    return Proof(
        max_difference=largest,
        sequences=len(probes),
        tokens=len(differences),
        answers_equal=equal,
        answers=len(prompts),
    )


def _logprobs(network: Any, datum: Datum) -> list[float]:
    """Log-probabilities of the trained tokens, one whole sequence at a time: the plainest way there is."""
    logprobs = network(torch.tensor([datum.tokens])).logits[0].float().log_softmax(-1)
    return [logprobs[position - 1, datum.tokens[position]].item() for position in datum.trained]


def _same_answer(network: Any, generation: GenerationConfig, prompt: Tokens, answer: Tokens) -> bool:
    """Whether `generate` writes `answer`; of two tokens equally likely (within TOLERANCE) either may be chosen."""
    tokens = torch.tensor([prompt])
    (whole,) = network.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=generation)
    written = whole[len(prompt) :].tolist()
    if tuple(written) == tuple(answer):
        return True
    fork = next((i for i, (ours, theirs) in enumerate(zip(answer, written, strict=False)) if ours != theirs), None)
    if fork is None:  # one goes on where the other stopped
        return False
    logits = network(torch.tensor([[*prompt, *answer[:fork]]])).logits[0, -1].float()
    return (logits[written[fork]] - logits[answer[fork]]).item() <= TOLERANCE
