"""The command line: `posttrain COMMAND`.  Each command is a verb of the Python door with its options and its words."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import typer
from rich.markup import escape

from posttrain.cli import auditing, comparing, data, documents, keys, looking, teaching, using
from posttrain.cli.show import errors
from posttrain.types import LearntNothing, UserError

INTERRUPTED = 130

app = typer.Typer(
    name="posttrain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Codify a task once, try every way of teaching it, serve the winner.\n\n"
    "Start with: [bold]posttrain compare FILE[/] (a CSV or JSONL of inputs and wanted outputs).",
)

for module in (comparing, teaching, using, data, auditing, looking, keys):
    module.add(app)


def main() -> None:
    """Runs the command line.  Exit code 2: bad input; 3: nothing was learnt; 130: interrupted; 1: a bug (with its
    traceback)."""
    as_json = "--json" in sys.argv
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with documents.alone(as_json):
            code = _run(as_json)
    except BrokenPipeError:  # whoever read stdout has had enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), documents.STDOUT)
        code = 1
    sys.exit(code)


def _stop(_: int, __: FrameType | None) -> None:
    """The first Ctrl-C ends the work in an orderly way; the second is not caught, whatever the process is doing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.write(documents.STDERR, b"\nStopping ... (Ctrl-C again kills)\n")
    raise KeyboardInterrupt


def _run(as_json: bool) -> int:
    try:
        code = app(standalone_mode=False)  # typer gives back the code of an Exit, and 130 for Ctrl-C
    except UserError as error:
        _fail(error.message, error.place, error.remedy, as_json)
        return 3 if isinstance(error, LearntNothing) else 2
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("click", "typer"):
            raise
        if said := _said(error):  # "posttrain" alone has shown its help, and says nothing more
            _fail(said, "", "see posttrain --help", as_json)
        return 2
    if code == INTERRUPTED and as_json:
        documents.print_document({"error": {"message": "interrupted", "place": "", "remedy": ""}})
    return int(code or 0)


def _said(error: Exception) -> str:
    """A command-line mistake in the parser's own words."""
    if isinstance(error, typer.Abort):
        return "not confirmed, so nothing was done"
    message = getattr(error, "format_message", None)
    return str(message() if message else error)


def _fail(message: str, place: str, remedy: str, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"error": {"message": message, "place": place, "remedy": remedy}}
        documents.print_document(document)
    where = f"[bold]{escape(place)}[/]: " if place else ""
    errors.print(f"[red]error:[/] {where}{escape(message)}", soft_wrap=True)
    if remedy:
        errors.print(f"  [dim]→[/] {escape(remedy)}", soft_wrap=True)
