"""What goes wrong, in three kinds: a person's input, one attempt of many, and everything else, which propagates."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from a person: says what is wrong, where, and what to do about it.  Never shown as a traceback.

    `place` is a file, `file:line`, column or option; `remedy` is one sentence in the imperative.
    """

    def __init__(self, message: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.place, self.remedy = message, place, remedy

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n  {self.remedy}" if self.remedy else text


class LearntNothing(UserError):
    """A technique ran to its end and nothing became better: a finding about the task, not a mistake in asking."""


class RolloutError(Exception):
    """One attempt failed: `layer` names what it crossed (policy, grader, environment ...)."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(f"{layer}: {message}")
        self.layer, self.message = layer, message
