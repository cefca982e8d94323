"""posttrain: codify a task once, try every way of teaching it, see what each bought and cost, serve the winner.

    import posttrain
    result = posttrain.compare("tickets.csv", minutes=10)

The verbs are loaded on first use, so that importing a part of the package stays quick.
"""

from __future__ import annotations

import importlib
from typing import Any

VERBS = (
    "audit",
    "chat",
    "check",
    "clean",
    "compare",
    "compare_tools",
    "evaluate",
    "export",
    "go_on",
    "init",
    "keys",
    "predict",
    "serve",
    "show",
    "still_wins",
    "teach",
)
STATED = ("Prices", "Several", "StatedCost")
"""What `compare` is told of money, and `teach` of settings that are to be swept."""


def __getattr__(name: str) -> Any:
    if name in (*VERBS, *STATED):
        return getattr(importlib.import_module("posttrain.api"), name)
    raise AttributeError(f"module 'posttrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *VERBS, *STATED})
