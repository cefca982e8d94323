"""The verbs that a policy without weights of its own cannot do, each refused with what to do instead."""
# ruff: noqa: ARG002  (the arguments are the protocol's)

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from posttrain.optimisers import Optimiser
from posttrain.types import Datum, LoRA, Loss, Metrics, Policy, UserError


class PromptOnly:
    """What is left of Policy for an endpoint that only samples."""

    model: str
    trainable = False

    def drop(self) -> None:
        """Nothing is held here: no adapter, no memory."""

    async def logprobs(self, data: Sequence[Datum]) -> list[list[float]]:
        self._refuse("give log-probabilities")

    async def forward_backward(self, data: Sequence[Datum], loss: Loss, *, normaliser: float = 1.0) -> Metrics:
        self._refuse("be trained")

    def keep_step(self, others: Sequence[Policy]) -> NoReturn:
        self._refuse("be trained")

    async def optim_step(self, settings: Optimiser) -> Metrics:
        self._refuse("be trained")

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        self._refuse("be saved")

    async def load(self, folder: Path) -> None:
        self._refuse("be loaded")

    def fork(self, name: str, lora: LoRA | None = None, *, seed: int = 0) -> Policy:
        self._refuse("be trained")

    def _refuse(self, verb: str) -> NoReturn:
        raise UserError(
            f"an endpoint can only be prompted: it cannot {verb}",
            place=self.model,
            remedy="use base, few_shot, knn_few_shot, prompt_search, retrieval or best_of with it, "
            "or a local --model to train",
        )
