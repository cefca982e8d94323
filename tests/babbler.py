"""A candidate that makes up words, for tests of what stands in front of candidates: it honours every sampling field."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.types import Completion, Kind, OnText, Output, Rollout, Row, Sampling, StopReason

WORDS = ("red", "green", "blue", "grey", "pink", "teal", "gold", "rust")


@dataclass
class Babbler:
    """Echoes the question's words; with a temperature, words drawn with the request's seed.

    `error` makes every rollout fail, `raises` the whole attempt; `pause_seconds` passes before each word.
    """

    name: str = "babbler"
    kind: Kind = "prompt"
    model: str = "words"
    output: Output = field(default_factory=lambda: Output(max_tokens=6))
    error: str = ""
    raises: Exception | None = None
    pause_seconds: float = 0.0
    heard: list[Row] = field(default_factory=list)
    samplings: list[Sampling | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    cancelled: int = 0

    async def attempt(self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None,
                      on_text: OnText | None = None) -> list[list[Rollout]]:
        if self.raises is not None:
            raise self.raises
        self.heard += rows
        self.samplings.append(sampling)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return [[await self._one(row, i, j, sampling, on_text) for j in range(n)] for i, row in enumerate(rows)]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1

    async def _one(self, row: Row, index: int, choice: int, sampling: Sampling | None,
                   on_text: OnText | None) -> Rollout:
        if self.error:
            return Rollout(row, error=self.error)
        how = sampling or Sampling(max_tokens=self.output.max_tokens, output=self.output)
        words = row.text.split() or ["nothing"]
        if how.output is not None and how.output.schema is not None:
            words = [json.dumps({"words": words})]
        if how.temperature > 0:
            draw = random.Random(f"{how.seed} {choice}")
            words = [draw.choice(WORDS) for _ in range(6)]
        reason: StopReason = "length" if len(words) > how.max_tokens else "stop"
        text, words = "", words[:how.max_tokens]
        for position, word in enumerate(words):
            await asyncio.sleep(self.pause_seconds)
            new = word if position == 0 else f" {word}"
            if any(stop in text + new for stop in how.stop):
                reason = "stop"
                break
            text += new
            if on_text is not None:
                on_text(index, choice, new)
        return Rollout(row, completion=Completion(text, reason, prompt_tokens=len(row.text.split()),
                                                  completion_tokens=len(words)))

    async def save(self, folder: Path) -> None:
        raise NotImplementedError(folder)
