"""What completions will probably say next: guessed, so that one step computes several of their tokens.

A guess changes no answer.  The step that feeds guessed tokens computes what follows each of them.  A completion draws
its next token from the model's own distribution, as always, and goes on within the step for as long as it draws what
was guessed (arXiv:2211.17192, for a draft that is sure of itself).  All weights are read in a step however few its
tokens are, so that a right guess saves a step, and a wrong one costs little.

There are two guessers.  *Copying* goes on as the prompt does after what was written last: answers repeat what was asked
(arXiv:2304.04487).  *Habit* goes on as earlier completions did: the answers to one task have one form.  A guesser is
heard where it would have been right lately, at the same place of other completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.types import Tokens

COPIED_AFTER = 3
"""Tokens: what is copied follows, in the prompt, as many of the last ones as are found there."""

HABIT_AFTER = 4
"""Tokens that have a habitual successor."""

MOST_HABITS = 100_000

LIKELY = 0.4
"""Guesses are fed while all of them are right with this probability; and further where they cost nothing."""

LONGEST_DRAFT = 16

PLACES = 64
"""Places of a completion that are told apart: tokens further on are at the last one."""

PACE = 0.1
"""How fast the rate at which a guesser is right follows its last guesses."""

Successors = Mapping[Tokens, int]


def successors(tokens: Sequence[int]) -> Successors:
    """What follows each sequence of up to `COPIED_AFTER` tokens where it first stands in `tokens`."""
    found: dict[Tokens, int] = {}
    for end in range(len(tokens) - 1, 0, -1):
        for length in range(1, min(COPIED_AFTER, end) + 1):
            found[tuple(tokens[end - length : end])] = tokens[end]
    return found


class Drafter:
    """Guesses how the completions of one adapter go on, and learns from how they do."""

    def __init__(self) -> None:
        self.habits: dict[Tokens, int] = {}
        self.copying, self.habit = Rates(), Rates()

    def draft(
        self, prompt: Tokens, written: Sequence[int], copyable: Successors, most: int, free: int = 0
    ) -> list[int]:
        """Up to `most` tokens that probably follow what is `written`, and up to `free` that may; `copyable` are the
        successors in the prompt."""
        after, guessed, likely = list(written), list[int](), 1.0
        while len(guessed) < min(most, LONGEST_DRAFT):
            guesses = [(rates.at(len(after)), token) for rates, token in self._guesses(prompt, after, copyable)]
            if not guesses:
                break
            rate, token = max(guesses)
            likely *= rate
            if likely < LIKELY and len(guessed) >= free:
                break
            guessed.append(token)
            after.append(token)
        return guessed

    def learn(self, prompt: Tokens, written: Sequence[int], copyable: Successors, token: int) -> None:
        """Takes note of the token that followed what was `written`."""
        for rates, guess in self._guesses(prompt, written, copyable):
            rates.learn(len(written), guess == token)
        if len(self.habits) >= MOST_HABITS:
            self.habits.clear()
        self.habits[_last(prompt, written)] = token

    def _guesses(self, prompt: Tokens, written: Sequence[int], copyable: Successors) -> list[tuple[Rates, int]]:
        guesses = []
        for length in range(min(COPIED_AFTER, len(written)), 0, -1):
            if (token := copyable.get(tuple(written[-length:]))) is not None:
                guesses.append((self.copying, token))
                break
        if (token := self.habits.get(_last(prompt, written))) is not None:
            guesses.append((self.habit, token))
        return guesses


class Rates:
    """How often a guesser is right, by the place in a completion."""

    def __init__(self) -> None:
        self.overall, self.places = 0.0, dict[int, float]()

    def at(self, place: int) -> float:
        """Where nothing is known yet, what it is overall."""
        return self.places.get(min(place, PLACES), self.overall)

    def learn(self, place: int, right: bool) -> None:
        place = min(place, PLACES)
        self.places[place] = self.at(place) + PACE * (right - self.at(place))
        self.overall += PACE * (right - self.overall)


def _last(prompt: Tokens, written: Sequence[int]) -> Tokens:
    """The last tokens, those of the prompt included."""
    missing = HABIT_AFTER - len(written)
    return (*prompt[-missing:], *written) if missing > 0 else tuple(written[-HABIT_AFTER:])
