"""The answers a running system gave: what there is to beat, and never a floor of our own making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.runs import write_json
from posttrain.types import Completion, Kind, OnText, Rollout, Row, Sampling


@dataclass(frozen=True)
class GivenCandidate:
    """`answers` maps the id of a row to what the system said.  A row without one is a failed rollout."""

    name: str
    answers: Mapping[str, str]
    kind: Kind = "given"
    model: str = ""

    @staticmethod
    def of(name: str, rows: Sequence[Row]) -> GivenCandidate:
        """The answers that came with the rows."""
        return GivenCandidate(name, {row.id: row.answer for row in rows if row.answer is not None})

    async def attempt(
        self,
        rows: Sequence[Row],
        *,
        n: int = 1,
        sampling: Sampling | None = None,  # noqa: ARG002
        on_text: OnText | None = None,
    ) -> list[list[Rollout]]:
        groups = []
        for index, row in enumerate(rows):
            groups.append([self._rollout(row)] * n)
            if on_text is not None and row.id in self.answers:
                for attempt in range(n):
                    on_text(index, attempt, self.answers[row.id])
        return groups

    def _rollout(self, row: Row) -> Rollout:
        if row.id not in self.answers:
            return Rollout(row, row.messages, error=f"given: no answer for row {row.id}")
        return Rollout(row, row.messages, Completion(self.answers[row.id], "stop", prompt=row.messages))

    async def save(self, folder: Path) -> None:
        write_json(
            folder / "candidate.json", {"schema": 1, "class": "given", "name": self.name, "answers": dict(self.answers)}
        )


def load(folder: Path, data: Mapping[str, Any], open_policy: object = None) -> GivenCandidate:  # noqa: ARG001
    """The candidate whose candidate.json holds `data`."""
    return GivenCandidate(data["name"], data["answers"])
