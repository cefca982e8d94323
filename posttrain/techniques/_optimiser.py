"""Which optimiser takes the steps of a training: a technique's choice, by name."""

from __future__ import annotations

from typing import Literal

from posttrain.optimisers import Adam, Muon, Optimiser

Chosen = Literal["adam", "muon"]

BETA2 = 0.99
"""Of Adam.  Steps are few: the second moment must forget the first ones."""

MOMENTUM = 0.9
"""Of Muon, for the same reason (0.95, its usual one, is worse here: docs/notes/2026-11-28-muon.md)."""


def settings(chosen: Chosen, rate: float) -> Optimiser:
    """Those of one step."""
    return Muon(rate, momentum=MOMENTUM) if chosen == "muon" else Adam(rate, beta2=BETA2)
