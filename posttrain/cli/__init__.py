"""The command line, one file per family of commands."""

from posttrain.cli.main import main

__all__ = ["main"]
