"""One step of training, with the settings it brings, on weights that have a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from posttrain.engines.muon import Muon
from posttrain.optimisers import Adam, Optimiser
from posttrain.types import Metrics, UserError

STATE = {torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"), Muon: ("momentum_buffer",)}
"""What each of them keeps of a parameter from step to step."""


def take_step(
    parameters: Sequence[Tensor], settings: Optimiser, last: torch.optim.Optimizer | None
) -> tuple[torch.optim.Optimizer, Metrics]:
    """Uses up the gradient.  `last` is what took the step before: it goes on where it is of the same kind.

    Raises UserError when there is no gradient, or it is not finite: then the weights are as they were.
    """
    if all(parameter.grad is None for parameter in parameters):
        raise UserError("an optimiser step without a gradient", remedy="call forward_backward first")
    kind = torch.optim.AdamW if isinstance(settings, Adam) else Muon
    optimiser = last if type(last) is kind else _fresh(kind, parameters)
    norm = clip_grad_norm_(parameters, settings.max_grad_norm or float("inf"))
    if not torch.isfinite(norm):
        optimiser.zero_grad(set_to_none=True)
        raise UserError("the gradient is not finite: training has diverged", remedy="use a smaller learning rate")
    for group in optimiser.param_groups:
        group.update(_as_torch_has_them(settings))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return optimiser, {"gradient_norm": norm.item()}


def _as_torch_has_them(settings: Optimiser) -> dict[str, object]:
    shared = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if isinstance(settings, Adam):
        return {**shared, "betas": (settings.beta1, settings.beta2), "eps": settings.epsilon}
    return {**shared, "momentum": settings.momentum}


def _fresh(kind: type[torch.optim.Optimizer], parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    more: dict[str, Any] = {"fused": True} if kind is torch.optim.AdamW else {}
    return kind(parameters, **more)


def kept(optimiser: torch.optim.Optimizer | None, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What it keeps from step to step, as PARAMETER.MOMENT."""
    state = optimiser.state if optimiser else {}
    return {
        f"{name}.{moment}": value
        for name, parameter in parameters.items()
        for moment, value in state.get(parameter, {}).items()
    }


def restored(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer | None:
    """The optimiser that had `kept` these; None for nothing.

    Raises ValueError when they are not those of one optimiser for all of these parameters, or parts are missing.
    """
    if not tensors:
        return None
    found = {name.rpartition(".")[2] for name in tensors}
    kind = next((kind for kind, moments in STATE.items() if found == set(moments)), None)
    if kind is None:
        raise ValueError(f"{', '.join(sorted(found))}: not what an optimiser keeps")
    optimiser = _fresh(kind, parameters.values())
    left = dict(tensors)
    for name, parameter in parameters.items():
        state = {moment: left.pop(f"{name}.{moment}") for moment in STATE[kind] if f"{name}.{moment}" in left}
        if not state:  # it has had no gradient yet
            continue
        if set(state) != set(STATE[kind]) or any(
            value.shape != (torch.Size() if moment == "step" else parameter.shape) for moment, value in state.items()
        ):
            raise ValueError(f"the moments of parameter {name} are not all there, or have not its shape")
        optimiser.state[parameter] = {moment: value.to(parameter.device, copy=True) for moment, value in state.items()}
    if left:
        raise ValueError(f"there is no parameter for {', '.join(sorted(left)[:3])}")
    return optimiser
