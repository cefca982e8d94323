"""Which of the numbers in a text is meant?  A logistic regression over what each looks like and where it stands.

For fields whose values are copied from the message: references, amounts, dates.  A *number* here is any word with
a digit in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray

NUMBER = re.compile(r"\w+(?:[-./:]\w+)*")
WORD = re.compile(r"\w+")


def numbers(text: str) -> dict[str, tuple[str, ...]]:
    """The numbers in a text, in order, each with the features of its first occurrence."""
    found = {
        match.group(): match
        for match in reversed(list(NUMBER.finditer(text)))
        if any(character.isdigit() for character in match.group())
    }
    return {number: _features(text, found[number], i, len(found)) for i, number in enumerate(reversed(found))}


def _features(text: str, match: re.Match[str], position: int, count: int) -> tuple[str, ...]:
    number = match.group()
    shape = re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", number))
    before = [word.lower() for word in WORD.findall(text[: match.start()])[-2:]]
    after = [word.lower() for word in WORD.findall(text[match.end() : match.end() + 40])[:1]]
    loose = re.sub(r"(.)\1+", r"\1", shape)
    return (
        f"shape {shape}",
        f"loose shape {loose}",
        f"letters {''.join(filter(str.isalpha, number)).lower()}",
        f"length {len(number)}",
        f"before {before[-1] if before else ''}",
        f"two before {' '.join(before)}",
        f"after {after[0] if after else ''}",
        f"sign {text[: match.start()][-1:].strip()}",
        "first" if position == 0 else "later",
        "only" if count == 1 else "one of several",
        "alone" if number == text.strip() else "in a text",
    )


@dataclass(frozen=True, eq=False)
class Copier:
    """Copies the likeliest number when it is likelier right than wrong, else says `fallback` (JSON text).

    `weights` belong to the features in `names`; `numeric` values are written as JSON numbers; `certainty` is how
    often the fallback was right when it was taken.
    """

    names: tuple[str, ...]
    weights: NDArray
    bias: float
    fallback: str
    certainty: float
    numeric: bool

    @cached_property
    def _weight(self) -> Mapping[str, float]:
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def choose(self, text: str) -> tuple[str, float]:
        """(value as JSON text, probability that it is right)."""
        number, probability = self.likeliest(text)
        return (number, probability) if probability > 0.5 else (self.fallback, self.certainty)

    def likeliest(self, text: str) -> tuple[str, float]:
        """(the likeliest number as JSON text, its probability); ("", 0) where there is none."""
        best, highest = "", 0.0
        for number, features in numbers(text).items():
            logit = self.bias + sum(self._weight.get(name, 0.0) for name in features)
            probability = float(1 / (1 + numpy.exp(-logit)))
            value = as_json(number, self.numeric)
            if value and probability > highest:
                best, highest = value, probability
        return best, highest


def as_json(number: str, numeric: bool) -> str:
    """A number of a text as the JSON value it would be copied as; "" when it cannot be one."""
    if not numeric:
        return f'"{number}"'  # word characters and punctuation of NUMBER need no escapes
    return number if re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", number, re.ASCII) else ""
