"""Sums and differences, made from a seed: `arithmetic` (one-digit sums), `arithmetic:two_digit` (and differences).

Numbers are held out in unordered pairs, so a test row's commuted twin is never in training.  Worked examples make an
untrained small model right now and then: in the instructions of the one-digit sums, from training pairs.  Of two digits
it imitates none there; `few_shot` shows them as turns of the conversation.  The answer of two digits is the whole
equation: a small model works out what it has just written (18 % right instead of 6).
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass
from itertools import combinations_with_replacement

from posttrain import graders
from posttrain.tasks.hashing import content_hash
from posttrain.types import Message, Output, Row, Task, UserError

SEED = 20250101
Pair = tuple[int, int]


@dataclass(frozen=True)
class Variant:
    """Operands from `low` to `high`; `shown` are the pairs of the worked examples, `test` and `dev` pairs held out.

    `max_tokens`: a digit is one, and so is the end.
    """

    low: int
    high: int
    shown: tuple[Pair, ...]
    test: int
    dev: int
    two_digit: bool
    max_tokens: int


VARIANTS = {
    "": Variant(0, 9, ((2, 3), (4, 1), (6, 7), (8, 8)), test=17, dev=6, two_digit=False, max_tokens=6),
    "two_digit": Variant(10, 99, (), test=100, dev=50, two_digit=True, max_tokens=14),
}


def task(variant: str = "") -> Task:
    """The task.  Raises UserError for a variant there is not."""
    if variant not in VARIANTS:
        known = [name for name in VARIANTS if name]
        nearest = difflib.get_close_matches(variant, known, n=1)
        raise UserError(
            f"no variant {variant!r} of arithmetic",
            remedy=f"did you mean arithmetic:{(nearest or known)[0]}? the plain one is called arithmetic",
        )
    chosen = VARIANTS[variant]
    output = Output(max_tokens=chosen.max_tokens)
    splits = {split: _rows(pairs, split, chosen) for split, pairs in _pairs(chosen).items()}
    return Task(
        name=f"arithmetic:{variant}" if variant else "arithmetic",
        version="1",
        splits=splits,
        output=output,
        instructions=(instructions := _instructions(chosen)),
        grader=graders.load("number", {}),
        hash=content_hash(splits, {"name": "number", "options": {}, "source": ""}, instructions, output),
    )


def _pairs(variant: Variant) -> dict[str, list[Pair]]:
    pairs = list(combinations_with_replacement(range(variant.low, variant.high + 1), 2))
    shown = {(min(pair), max(pair)) for pair in variant.shown}
    held_out = [pair for pair in pairs if pair not in shown]
    random.Random(SEED).shuffle(held_out)
    test, dev = set(held_out[: variant.test]), set(held_out[variant.test : variant.test + variant.dev])
    train = [pair for pair in pairs if pair not in test | dev]
    return {"train": train, "dev": sorted(dev), "test": sorted(test)}


def _rows(pairs: list[Pair], split: str, variant: Variant) -> tuple[Row, ...]:
    """One-digit: each pair in both orders.  Two-digit: one sum, in a random order, and one difference."""
    order = random.Random(SEED + 1)
    rows = []
    for small, large in pairs:
        if variant.two_digit:
            left, right = order.sample((small, large), 2)
            questions = [
                (f"{left} + {right}", left + right, "sum"),
                (f"{large} - {small}", large - small, "difference"),
            ]
        else:
            both = dict.fromkeys([(small, large), (large, small)])
            questions = [(f"{left} + {right}", left + right, "sum") for left, right in both]
        for question, answer, kind in questions:
            target = f"{question} = {answer}" if variant.two_digit else str(answer)
            rows.append((f"What is {question}?", target, kind))
    order.shuffle(rows)
    return tuple(
        Row(
            f"{split}-{number}",
            (Message("user", question),),
            target=target,
            slices=(kind,) if variant.two_digit else (),
        )
        for number, (question, target, kind) in enumerate(rows, 1)
    )


def _instructions(variant: Variant) -> str:
    shown = [f"Q: What is {left} + {right}? A: {left + right}" for left, right in variant.shown]
    answer = "whole equation" if variant.two_digit else "number"
    return "\n".join([f"Answer with the {answer} and nothing else.", *(["", *shown] if shown else [])])
