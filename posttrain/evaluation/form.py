"""Whether an answer has the form that the task asks for, whatever its grader thinks of what it says."""

from __future__ import annotations

from posttrain.graders.json import read_object, validator
from posttrain.types import Output


def has_form(answer: str, output: Output) -> bool | None:
    """Whether it is one of the labels, or a record that the schema allows; None where any text will do."""
    if output.labels:
        return answer.strip() in output.labels
    if output.schema is None:
        return None
    record = read_object(answer)
    try:
        return record is not None and bool(validator(output.schema).is_valid(record))
    except RecursionError:  # nested beyond all sense
        return False
