"""How much a technique will do: what the estimate before a comparison is made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Rows answered while searching or sampling, and rows trained on (a row trained for 3 epochs counts thrice)."""

    rows_answered: int = 0
    rows_trained: int = 0
