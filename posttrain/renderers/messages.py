"""For remote chat endpoints: they take the messages themselves and tokenise them out of our sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.renderers.tool_text import plain
from posttrain.types import Datum, Message, UserError

CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text."""


class MessageRenderer:
    """Hands messages on; tools are written into them as words (see tool_text)."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[Message, ...]:
        return plain(messages, tools)

    def datum(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Datum:  # noqa: ARG002
        """Always raises UserError."""
        raise UserError(
            "an endpoint cannot be trained", remedy="choose a technique that needs no weights, or give a local --model"
        )

    def decode(self, tokens: Sequence[int]) -> str:  # noqa: ARG002
        """Always raises UserError."""
        raise UserError("an endpoint has no tokens", remedy="give a local --model")

    def count(self, text: str) -> int:
        """An estimate: the endpoint's tokenizer is not known here."""
        return len(text) // CHARACTERS_PER_TOKEN
