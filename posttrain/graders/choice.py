"""The answer is one of a closed set of labels, and the right one."""

from __future__ import annotations

from posttrain.types import RolloutError, Row, Score, target_text

AROUND = " \"'`*."


class Grader:
    """Option: `ignore_case`.  The labels are the task's `[output] labels`.

    White space, quotes and a full stop around the answer are forgiven (unless labels are told apart by them, as "*"
    and "**" are); any other text is not a label.
    """

    def __init__(self, *, ignore_case: bool = True, labels: tuple[str, ...] = ()) -> None:
        if not labels:
            raise ValueError("choice needs a list `labels` under [output]")
        self.ignore_case = ignore_case
        bare = {label.strip(AROUND) for label in labels}
        self.around = AROUND if "" not in bare and len(bare) == len(labels) else None
        self.labels = {self._normal(label): label for label in labels}
        if "" in self.labels:
            raise ValueError("a label is empty")
        if len(self.labels) < len(labels):
            raise ValueError("two labels are the same once case and punctuation around them are ignored")

    async def grade(self, row: Row, answer: str) -> Score:
        if row.target is None:
            raise RolloutError("grader", f"row {row.id} has no target")
        chosen = self.labels.get(self._normal(answer))
        target = target_text(row.target)
        right = chosen is not None and chosen == self.labels.get(self._normal(target))
        explanation = "" if right else f"wanted {target!r}" if chosen else "not one of the labels"
        return Score(float(right), right, {"valid": float(chosen is not None)}, explanation)

    def _normal(self, text: str) -> str:
        text = text.strip().strip(self.around).strip()
        return text.casefold() if self.ignore_case else text
