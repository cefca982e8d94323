"""What reaches a model of transformers: the tokens that are fed, and the rows that its output head multiplies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def counting(model: Any) -> Iterator[dict[str, int]]:
    """Counts while the block within runs; padding counts, for it is computed."""
    counts = {"forwarded_tokens": 0, "head_rows": 0}

    def add_to(name: str, dimensions: int) -> Callable[[Any, Any], None]:
        def add(_module: Any, given: Any) -> None:
            counts[name] += given[0].shape[:dimensions].numel()

        return add

    hooks = [
        model.get_input_embeddings().register_forward_pre_hook(add_to("forwarded_tokens", 2)),
        model.get_output_embeddings().register_forward_pre_hook(add_to("head_rows", -1)),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
