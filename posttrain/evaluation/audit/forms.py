"""The form of answers: what stays when their content is taken out, and what else may be put in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from posttrain.types import Row

NUMBER = re.compile(r"[-+]?\d+(?:[.,/]\d+)*")
WORD = re.compile(r"[^\W\d_]+")
MOST_FOUND = 2000

STRANGE_NUMBERS = ("nan", "inf", "-inf", "0", "1", "-1", "999999999", "-999999999", "1e-9", "1/0", "NaN")
"""What numbers may be replaced by: no numbers, very large ones and very small ones."""

SLOT = "\ufffc"
"""Stands for a number that was taken out; answers do not have it."""

EMPTY_VALUES: tuple[Any, ...] = ("", None, 0, False, True, [], {})


def shell(text: str, letter: str) -> str:
    """A text with every word and every number in it replaced by one letter: its form without its content."""
    return re.sub(r"\w+", letter, text)


def digits(text: str, digit: str) -> str:
    """A text with every digit replaced by one: dates and numbers that have the form, and maybe are none."""
    return re.sub(r"\d", digit, text)


def frames(golds: Sequence[str], *, whole: bool = False) -> list[str]:
    """The forms that answers, or their last lines (but for `whole`), have when numbers are taken out, the commonest
    first."""
    lasts = [] if whole else [gold.strip().rpartition("\n")[2] for gold in golds]
    return [frame for frame, _ in Counter(NUMBER.sub(SLOT, text) for text in (*lasts, *golds)).most_common()]


def fitting(frames: Sequence[str], question: str) -> str:
    """Of these frames the one whose words a question names most of: the unit that it asks for, say; else the first."""
    asked = {word.casefold() for word in WORD.findall(question)}

    def fit(frame: str) -> float:
        words = [word.casefold() for word in WORD.findall(frame)]
        return sum(word in asked for word in words) / len(words) if words else 0.0

    return max(frames, key=fit)


def framed(frames: Sequence[str], number: Callable[[Row], str]) -> Callable[[Row], str]:
    """An answer in the form that fits a row, with a number in the place of each."""
    return lambda row: fitting(frames, row.text).replace(SLOT, number(row))


def filled(frames: Sequence[str]) -> Callable[[Row], str]:
    """An answer in the form that fits a row and has as many places for numbers as its question names, in which they are
    put in their order; in the first that fits where none has."""

    def answer(row: Row) -> str:
        named = numbers(row.text)
        alike = [frame for frame in frames if frame.count(SLOT) == len(named)]
        first, *rest = fitting(alike or frames, row.text).split(SLOT)
        return first + "".join(f"{named[i % len(named)] if named else 0}{text}" for i, text in enumerate(rest))

    return answer


def counted_on(line: str, times: int) -> str:
    """A line again and again, in which the first number that stands alone goes on: "Day 1: x", "Day 2: x"."""
    counter = re.search(r"\b\d{1,4}\b", line)
    if not counter:
        return "\n".join([line] * times)
    first, (start, end) = int(counter[0]), counter.span()
    return "\n".join(f"{line[:start]}{first + i}{line[end:]}" for i in range(times))


def fields(golds: Iterable[str]) -> dict[str, list[str]]:
    """The values of each field of answers that are records in JSON, or lines of the form `name: value`."""
    found: dict[str, list[str]] = {}
    for gold in golds:
        try:
            record = json.loads(gold)
        except ValueError:
            record = dict(re.findall(r"^([^:\n]{1,40}): *(.+)$", gold, re.MULTILINE))
        for name, value in record.items() if isinstance(record, dict) else ():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if text not in (known := found.setdefault(name, [])):
                known.append(text)
    return found


def finder(known: Collection[str]) -> Callable[[str], list[str]] | None:
    """What finds these in a text, in its order, the longest where several begin; None of nothing to find."""
    texts = sorted((text for text in known if WORD.search(text)), key=len, reverse=True)[:MOST_FOUND]
    if not texts:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, texts))})(?!\w)").findall


def quoted(question: str) -> list[str]:
    """What stands between marks of quotation."""
    return [found.strip() for found in re.findall(r"[\"“`']([^\"”`'\n]+)[\"”`']", question) if found.strip()]


def sums(question: str) -> list[str]:
    """Numbers with operators between them."""
    return [found.strip() for found in re.findall(r"[\d(][\d\s.()]*(?:[-+*/×÷^][\s(]*[\d.]+[\s)]*)+", question)]


def numbers(question: str) -> list[str]:
    """Those that a question names, in order."""
    return NUMBER.findall(question)


def named(question: str) -> list[str]:
    """The names and the numbers in a question: words that begin with a capital, and what begins with a digit."""
    return [word.strip(" ,.;:!?()\"'") for word in question.split() if re.match(r"[\W_]*[A-Z\d]", word)]


def items(question: str) -> list[str]:
    """What a question lists: the line that has most parts behind its colon, by commas, else by blanks."""
    lines = [line.rpartition(":")[2] for line in question.split("\n") if line.rpartition(":")[2].strip()]
    listed = max(lines or [question], key=lambda line: (len(re.split(r"[,;]", line)), len(line.split())))
    parts = re.split(r"[,;]", listed) if re.search(r"[,;]", listed) else listed.split()
    return [part.strip(" \"'[]().") for part in parts if part.strip(" \"'[]().")]


def emptied(golds: Iterable[str]) -> list[str]:
    """Records and lists like these, with nothing in them: fields left out, and empty values of every kind."""
    found: list[Any] = []
    for gold in golds:
        try:
            value = json.loads(gold)
        except ValueError:
            continue
        if isinstance(value, dict):
            found += [{}, *(dict.fromkeys(value, empty) for empty in EMPTY_VALUES)]
            found += [{name: value[name]} for name in value]
            found.append({"0": "0"})
        elif isinstance(value, list):
            found += [[], [[]], [None], [""], [0], value[:1], value[-1:]]
    return [*dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in found)]


def vocabulary(golds: Sequence[str]) -> list[str]:
    """The words and numbers of answers, the commonest first."""
    counted: Counter[str] = Counter()
    for gold in golds:
        counted.update([*dict.fromkeys(re.findall(r"\w+", gold))])
    return [word for word, _ in counted.most_common()]
