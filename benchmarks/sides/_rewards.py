"""A reward that both sides know, and that no two answers of a group are likely to share."""

from collections.abc import Sequence


def reward(tokens: Sequence[int]) -> float:
    return sum(int(token) for token in tokens) % 1009 / 1009
