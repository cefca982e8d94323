"""serve: models behind OpenAI's API, and jobs that make more of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.api import places
from posttrain.api.engines import EMBEDDED, Precision, opened

DATA = Path("service")
"""Where files and what jobs make are kept unless told otherwise."""


def serve(
    what: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    precision: Precision | None = None,
    deterministic: bool = False,
    runs: Path = places.RUNS,
    data: Path = DATA,
    database: str = "",
    workers: int = 1,
    ready: Callable[[str, list[str]], None] | None = None,
) -> None:
    """Serves the winners of runs, saved candidates and bare models behind OpenAI's API, until interrupted; agents
    that one may ask answer as "NAME.AGENT".  Where nothing is named, it is the latest run's winner and the embedded
    model.

    Bare models can be fine-tuned by whoever asks: files, jobs and what they make are kept in `data`, and remembered in
    a database there or in that of the URL `database`; `workers` jobs run at a time, and with 0 none are taken.

    `precision` is that of local models: the fastest that answers as it was evaluated, or `int8`, which is faster still
    where few are asking.  `deterministic`: an answer is the same to the bit whatever else they are asked; what prompts
    share is read for each.  `ready` is called with the URL and the names under which they answer.  Raises UserError.
    """
    from posttrain.api import service  # noqa: PLC0415  (the web server and the database: a second to load)

    if not what:
        what = [*([places.LATEST] if places.all_runs(runs) else []), EMBEDDED]
    with opened(precision, deterministic=deterministic) as engines:
        service.run(
            what,
            engines,
            address=(host, port),
            runs=runs,
            data=data,
            database=database,
            workers=workers,
            ready=ready,
        )
