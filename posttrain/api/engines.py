"""The models in use, each loaded once: the only place that builds engines.

An engine is a module of posttrain.engines with `open(model, precision) -> engine`, and an engine has `base()`,
`load(folder)` and `close()`.  Only the one that is needed is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from posttrain.discovery import find
from posttrain.types import Policy

Precision = Literal["float32", "bfloat16"]

ENDPOINT = "chat:"
"""What the name of a remote model begins with: chat:URL#NAME."""


class Engines:
    """`precision` None: the fastest the device has.  `replies`: where the answers of endpoints are kept."""

    def __init__(self, precision: Precision | None = None, replies: Path | None = None) -> None:
        self.precision, self.replies = precision, replies
        self.local: dict[str, Any] = {}

    def policy(self, model: str, adapter: Path | None = None) -> Policy:
        """The policy of a model (`smollm2`, folder, hub name, `chat:URL#NAME`), with the adapter in a folder if given.

        Raises UserError when it cannot be had.
        """
        if model.startswith(ENDPOINT):
            endpoint = find("engines", "chat_api").ChatApiPolicy.open(model)
            endpoint.replies_path = self.replies
            return endpoint
        if model not in self.local:
            self.local[model] = find("engines", "torch").open(model, precision=self.precision)
        engine = self.local[model]
        return engine.base() if adapter is None else engine.load(adapter)

    def close(self) -> None:
        for engine in self.local.values():
            engine.close()


@contextmanager
def opened(precision: Precision | None = None, replies: Path | None = None) -> Iterator[Engines]:
    """The models of one verb, closed at its end."""
    engines = Engines(precision, replies)
    try:
        yield engines
    finally:
        engines.close()
