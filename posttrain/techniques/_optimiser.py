"""Which optimiser takes the steps of a training, and how large they are: a technique's choice, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posttrain.optimisers import Adam, Muon, Optimiser

BETA2 = 0.99
"""Of Adam.  Steps are few: the second moment must forget the first ones."""

MOMENTUM = 0.9
"""Of Muon, for the same reason (0.95, its usual one, was worse: docs/notes/2026-11-28-muon.md)."""

RATES = {"adam": 1e-3, "muon": 5e-3}


@dataclass(frozen=True)
class Stepping:
    """`learning_rate` None is what suits the optimiser: see RATES."""

    optimiser: Literal["adam", "muon"] = "adam"
    learning_rate: float | None = None

    def step(self, share: float) -> Optimiser:
        """A step at a share of the rate."""
        rate = share * (RATES[self.optimiser] if self.learning_rate is None else self.learning_rate)
        return Muon(rate, momentum=MOMENTUM) if self.optimiser == "muon" else Adam(rate, beta2=BETA2)
