"""The answer is the target, letter for letter, after the normalisation asked for."""

from __future__ import annotations

from posttrain.types import RolloutError, Row, Score, target_text


class Grader:
    """Options: `ignore_case`; `ignore_space` (runs of white space count as one, none at the ends);
    `ignore_punctuation` (everything but letters, digits and white space is dropped)."""

    def __init__(
        self, *, ignore_case: bool = False, ignore_space: bool = True, ignore_punctuation: bool = False
    ) -> None:
        self.ignore_case, self.ignore_space, self.ignore_punctuation = ignore_case, ignore_space, ignore_punctuation

    async def grade(self, row: Row, answer: str) -> Score:
        if row.target is None:
            raise RolloutError("grader", f"row {row.id} has no target")
        target = target_text(row.target)
        right = self._normal(answer) == self._normal(target)
        return Score(float(right), right, explanation="" if right else f"wanted {target!r}")

    def _normal(self, text: str) -> str:
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = "".join(character for character in text if character.isalnum() or character.isspace())
        return " ".join(text.split()) if self.ignore_space else text
