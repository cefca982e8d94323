"""The adapter that a technique trains: a fresh one, or a copy of what was trained before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Run
from posttrain.types import LoRA, Policy, UserError


def trainable(candidate: PolicyCandidate, technique: str, lora: LoRA | None, run: Run) -> Policy:
    """A policy to train that begins as the candidate's; `lora` shapes its adapter when the candidate has none yet.

    Raises UserError when a shape is asked for and the candidate has an adapter already, which keeps its own.
    """
    if lora is not None and candidate.kind == "weights":
        raise shape_is_settled(technique)
    return candidate.policy.fork(f"{candidate.name}-{technique}", lora, seed=run.seed)


@contextmanager
def dropped_on_failure(policy: Policy) -> Iterator[None]:
    """Gives the adapter's memory back when its training ends in an error: no candidate will carry it."""
    try:
        yield
    except BaseException:
        policy.drop()
        raise


@contextmanager
def as_it_is(policy: Policy) -> Iterator[Policy]:
    """The policy as it is now, never trained, for as long as it is needed: a second copy of its adapter."""
    frozen = policy.frozen()
    try:
        yield frozen
    finally:
        frozen.drop()


def shape_is_settled(technique: str) -> UserError:
    """The error for a `lora` setting that could only be ignored."""
    return UserError(
        f"{technique} goes on training an adapter that has its shape already: `lora` cannot change it",
        place=f"{technique}: lora",
        remedy="leave `lora` out, or set it where the adapter is first trained",
    )
