"""Muon for many small matrices at once: those of one shape are orthogonalised together.

torch.optim.Muon goes through its matrices one by one; the 420 of an adapter on a small model take it as long as a third
of a step of training.  This is the same optimiser but for rounding (it computes in fp32, torch's in bfloat16).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
"""K. Jordan, "Muon: an optimizer for hidden layers", 2024: singular values end between 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum of the gradient, in Nesterov's form; see optimisers.Muon.

    Only for matrices.  Each moves by `lr` * sqrt(max(1, rows / columns)), as in the text above.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Takes one step along the gradients there are."""
        for group in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape, parameter.device].append(parameter)
            for parameters in alike.values():
                directions = torch.stack([self._direction(each, group["momentum"]) for each in parameters]).float()
                _move(parameters, directions, group["lr"], group["weight_decay"])

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        average = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        average.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)  # type: ignore[union-attr]


def _move(parameters: Sequence[Tensor], directions: Tensor, rate: float, weight_decay: float) -> None:
    """Parameters of one shape, along their directions [parameters, rows, columns]."""
    _, rows, columns = directions.shape
    steps = orthogonalised(directions) if rows <= columns else orthogonalised(directions.mT).mT
    for parameter, step in zip(parameters, steps, strict=True):
        parameter.mul_(1 - rate * weight_decay)
        parameter.add_(step.to(parameter.dtype), alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonalised(matrices: Tensor) -> Tensor:
    """matrices [count, rows, columns], rows <= columns, each with its singular values brought near 1.

    Newton and Schulz's iteration X <- (a + b XX' + c (XX')^2) X.  All factors are polynomials of the first XX', so
    only these [rows, rows] are iterated, and X is multiplied once.
    """
    a, b, c = COEFFICIENTS
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    square = matrices @ matrices.mT
    whole = identity = torch.eye(square.shape[1], device=square.device).expand_as(square)
    for _ in range(ITERATIONS):
        factor = a * identity + b * square + c * (square @ square)
        whole, square = factor @ whole, factor @ square @ factor
    return whole @ matrices
