"""The same answer to everything: the floor under all floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posttrain.candidates._floor import Answer, rollouts
from posttrain.runs import write_json
from posttrain.types import Kind, OnText, Rollout, Row, Sampling


@dataclass(frozen=True)
class ConstantCandidate:
    """`confidence` is the share of train rows to which the answer is right."""

    name: str
    text: str
    confidence: float
    kind: Kind = "floor"
    model: str = ""

    async def attempt(
        self,
        rows: Sequence[Row],
        *,
        n: int = 1,
        sampling: Sampling | None = None,  # noqa: ARG002
        on_text: OnText | None = None,
    ) -> list[list[Rollout]]:
        return rollouts(rows, lambda rows: [Answer(self.text, self.confidence) for _ in rows], n, on_text)

    async def save(self, folder: Path) -> None:
        write_json(folder / "candidate.json", {"schema": 1, "class": "constant", **asdict(self)})


def load(folder: Path, data: Mapping[str, Any], open_policy: object = None) -> ConstantCandidate:  # noqa: ARG001
    """The candidate whose candidate.json holds `data`."""
    return ConstantCandidate(data["name"], data["text"], data["confidence"])
