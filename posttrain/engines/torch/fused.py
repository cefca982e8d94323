"""Norms and gates as one kernel each on a GPU, where every operation reads and writes memory for itself.

Rotations are left as they are: they are three operations, and took torch 2.13 a minute to compile for a CPU.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

COMPILED = ("cuda",)
"""Kinds of devices (ROCm is `cuda` to torch).  On a CPU these chains are in C."""

_log = logging.getLogger(__name__)


def compiles(x: Tensor) -> bool:
    """Whether what is done with this tensor is compiled."""
    return x.device.type in COMPILED


def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function of tensors, compiled when it is first called on a GPU, for any number of tokens; elsewhere, and
    where compiling fails, as it is."""
    compiled = torch.compile(function, dynamic=True)
    failed = False

    @functools.wraps(function)
    def call(x: Tensor, *more: Any) -> Result:
        nonlocal failed
        if compiles(x) and not failed:
            try:
                return compiled(x, *more)
            except torch._dynamo.exc.TorchDynamoException as error:
                failed = True
                _log.warning("torch.compile failed; %s is slower than it could be: %s", function.__name__, error)
        return function(x, *more)

    return call
