"""The command line: `posttrain COMMAND`.  Each command is a verb of the Python door with its options and its words."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import typer
from rich.markup import escape

from posttrain.cli import comparing, data, teaching, using
from posttrain.cli.show import errors
from posttrain.types import UserError

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

for module in (comparing, teaching, using, data):
    module.add(app)


def main() -> None:
    """Runs the command line.  Exit code 2: bad input; 130: interrupted; 1: a bug (with its traceback)."""
    as_json = "--json" in sys.argv
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)  # typer gives back the code of an Exit, and 130 for Ctrl-C
    except UserError as error:
        _fail(error, as_json)
        sys.exit(2)
    except Exception as error:
        if type(error).__module__.startswith("click") or type(error).__module__.startswith("typer"):
            errors.print(f"[red]{escape(_said(error))}[/]\n  try: posttrain --help")
            sys.exit(2)
        raise
    if code == INTERRUPTED:
        errors.print("\n[yellow]Stopped.[/] What was finished is kept; `posttrain compare --resume latest` goes on.")
    sys.exit(code or 0)


def _said(error: Exception) -> str:
    """A command-line mistake in the parser's own words."""
    message = getattr(error, "format_message", None)
    return str(message() if message else error)


def _fail(error: UserError, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"error": {"message": error.message, "place": error.place, "remedy": error.remedy}}
        print(json.dumps(document, ensure_ascii=False))
    place = f"[bold]{escape(error.place)}[/]: " if error.place else ""
    errors.print(f"[red]error:[/] {place}{escape(error.message)}", soft_wrap=True)
    if error.remedy:
        errors.print(f"  [dim]→[/] {escape(error.remedy)}", soft_wrap=True)
