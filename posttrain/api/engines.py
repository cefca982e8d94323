"""The models in use, each loaded once: the only place that builds engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posttrain.engines.chat_api import PREFIX, ChatApiPolicy
from posttrain.engines.torch.adapters import Precision
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import Policy


class Engines:
    """`precision` None: the fastest the device has.  `replies`: where the answers of endpoints are kept."""

    def __init__(self, precision: Precision | None = None, replies: Path | None = None) -> None:
        self.precision, self.replies = precision, replies
        self.torch: dict[str, TorchEngine] = {}

    def policy(self, model: str, adapter: Path | None = None) -> Policy:
        """The policy of a model (`smollm2`, folder, hub name, `chat:URL#NAME`), with the adapter in a folder if given.

        Raises UserError when it cannot be had.
        """
        if model.startswith(PREFIX):
            endpoint = ChatApiPolicy.open(model)
            endpoint.replies_path = self.replies
            return endpoint
        if model not in self.torch:
            self.torch[model] = TorchEngine.open(model, precision=self.precision)
        engine = self.torch[model]
        return engine.base() if adapter is None else engine.load(adapter)

    def close(self) -> None:
        for engine in self.torch.values():
            engine.close()


@contextmanager
def opened(precision: Precision | None = None, replies: Path | None = None) -> Iterator[Engines]:
    """The models of one verb, closed at its end."""
    engines = Engines(precision, replies)
    try:
        yield engines
    finally:
        engines.close()
