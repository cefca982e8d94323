"""The models in use, each loaded once: the only place that builds engines.

An engine is a module of posttrain.engines with `open(model, precision, deterministic) -> engine`, and an engine has
`base()`, `load(folder)` and `close()`.  Only the one that is needed is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from posttrain.discovery import find
from posttrain.types import Policy

Precision = Literal["float32", "bfloat16", "int8"]
"""In what products with frozen weights are computed on a CPU."""

EMBEDDED = "smollm2"
"""The model that is used when none is named: it travels with the installation."""

ENDPOINT = "chat:"
"""What the name of a remote model begins with: chat:URL#NAME."""


DATABASE = "POSTTRAIN_DATABASE"
"""The environment variable with the URL of the service's database."""


def is_endpoint(model: str) -> bool:
    """Whether a model is somebody else's server, which can be prompted and not taught."""
    return model.startswith(ENDPOINT)


def refuse_unknown(model: str) -> None:
    """Raises UserError for what is no endpoint's name and no model's folder.  Nothing is loaded, and no hub asked."""
    if is_endpoint(model):
        find("engines", "chat_api").ChatApiPolicy.open(model)
    elif model != EMBEDDED:
        find("engines", "torch").base.resolve(model)


class Engines:
    """`precision` None: the fastest the device has.  `deterministic`: local models answer the same to the bit whatever
    else they are asked at the same time."""

    def __init__(self, precision: Precision | None = None, *, deterministic: bool = False) -> None:
        self.precision, self.deterministic = precision, deterministic
        self.local: dict[str, Any] = {}
        self.remote: list[Any] = []

    def policy(self, model: str, adapter: Path | None = None) -> Policy:
        """The policy of a model (`smollm2`, folder, hub name, `chat:URL#NAME`), with the adapter in a folder if given.

        Raises UserError when it cannot be had.
        """
        if is_endpoint(model):
            self.remote.append(find("engines", "chat_api").ChatApiPolicy.open(model))
            return self.remote[-1]
        if model not in self.local:
            open_engine = find("engines", "torch").open
            self.local[model] = open_engine(model, precision=self.precision, deterministic=self.deterministic)
        engine = self.local[model]
        return engine.base() if adapter is None else engine.load(adapter)

    def keep_replies(self, path: Path) -> None:
        """From now on what endpoints answer is kept in a file, and no question in it is paid for twice."""
        for endpoint in self.remote:
            endpoint.replies_path = path

    def close(self) -> None:
        for engine in self.local.values():
            engine.close()


@contextmanager
def opened(precision: Precision | None = None, *, deterministic: bool = False) -> Iterator[Engines]:
    """The models of one verb, closed at its end."""
    engines = Engines(precision, deterministic=deterministic)
    try:
        yield engines
    finally:
        engines.close()
