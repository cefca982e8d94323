"""Tasks: loading, making, checking, and matching other people's answers to them.  No model is needed for any of it."""

from posttrain.tasks.answers import match_answers, read_rows
from posttrain.tasks.checking import check
from posttrain.tasks.creating import create
from posttrain.tasks.findings import Finding
from posttrain.tasks.loading import load

__all__ = ["Finding", "check", "create", "load", "match_answers", "read_rows"]
