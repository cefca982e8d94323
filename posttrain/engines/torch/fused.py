"""Norms and gates compiled on a GPU, where every operation reads and writes memory for itself.

Rotations are left as they are: they are three operations, and took torch 2.13 a minute to compile for a CPU.
"""

from __future__ import annotations

import functools
import logging
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

COMPILED = ("cuda",)
"""Kinds of devices (ROCm is `cuda` to torch).  On a CPU these chains are in C."""

MOST_VARIANTS = 32
"""Of a function: with and without gradients, of one row and of more, of hidden states and of heads."""

FAILURES = (torch._dynamo.exc.TorchDynamoException, OSError, subprocess.SubprocessError)
"""Of compilers that are not there, or cannot do it."""

_log = logging.getLogger(__name__)
_failed: set[str] = set()  # names of functions


def compiles(x: Tensor) -> bool:
    """Whether what is done with this tensor is compiled, as far as is known by now."""
    return x.device.type in COMPILED and not _failed


def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function of tensors, compiled when it is first called on a GPU, for any number of tokens; elsewhere, and
    where compiling has failed, as it is."""

    @functools.cache
    def compiled() -> Callable[..., Result]:
        limited = torch._dynamo.config.patch(recompile_limit=MOST_VARIANTS)
        return limited(torch.compile(function, dynamic=True))

    @functools.wraps(function)
    def call(x: Tensor, *more: Any) -> Result:
        if compiles(x):
            try:
                return compiled()(x, *more)
            except FAILURES as error:
                _failed.add(function.__qualname__)
                _log.warning("torch.compile failed on %s; norms and gates are slower: %s", function.__qualname__, error)
        return function(x, *more)

    return call
