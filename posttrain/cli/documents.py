"""The JSON document of a --json command: the only thing that reaches stdout, whatever the work prints.

Graders are code of the user's, and may print or start programs that do: while such a command runs, all of that goes to
stderr, that of other programs too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from posttrain.runs import to_json

STDOUT, STDERR = 1, 2
SCHEMA = 1
_kept: list[tuple[TextIO, int]] = []
"""The stdout that is kept for the document, and its file descriptor, while a --json command runs."""


@contextmanager
def alone(as_json: bool) -> Iterator[None]:
    """Keeps stdout for `print_document` while the block runs."""
    if not as_json:
        yield
        return
    sys.stdout.flush()
    descriptor = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    _kept.append((sys.stdout, descriptor))
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _kept.pop()
        os.dup2(descriptor, STDOUT)
        os.close(descriptor)


def print_document(document: Mapping[str, Any]) -> None:
    """Prints the document, at once; it always has a `schema`."""
    text = to_json({"schema": SCHEMA, **document}, indent=1)
    if not _kept:
        print(text, flush=True)
        return
    stream, descriptor = _kept[-1]
    os.dup2(descriptor, STDOUT)
    print(text, file=stream, flush=True)
    os.dup2(STDERR, STDOUT)
