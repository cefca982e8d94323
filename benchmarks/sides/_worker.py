"""One side of a comparison: a process that does named work whenever a line on standard input asks for it.

A request is a JSON line {"do": name, ...arguments}; the reply is a JSON line on standard output: what the work gave
back, and the most memory the process has had so far, in bytes.  All else that is printed goes to standard error.  Only
the standard library is needed: peers live in an environment of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

REPLIES = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # from the import on, so that nothing a library says is taken for a reply


def serve(works: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answers requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        work = works[request.pop("do")]
        reply = dict(work(**request))
        reply["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(reply), file=REPLIES, flush=True)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """What the block within takes, once it is at its end: by the clock, and of the processor, by all threads."""
    taken: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield taken
    taken.update(wall_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)
