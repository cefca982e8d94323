"""What a step of training may be: the settings that a policy's `optim_step` is given.

Adam divides each number's gradient by its usual size.  Muon goes equally far in all directions of a matrix: rare
directions, in which the gradient is small, are learnt as fast as common ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adam:
    """One AdamW step (arXiv:1711.05101); the gradient is clipped to `max_grad_norm` first (0: never)."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class Muon:
    """One Muon step (K. Jordan, "Muon: an optimizer for hidden layers", 2024; arXiv:2502.16982), for weights that are
    matrices: the gradient's momentum with all its singular values set to about 1, times the rate and, for a matrix that
    is higher than it is wide, the root of that ratio.  The gradient is clipped to `max_grad_norm` first (0: never)."""

    learning_rate: float
    momentum: float = 0.95
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


Optimiser = Adam | Muon
