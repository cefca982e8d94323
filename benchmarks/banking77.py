"""20 intents of BANKING77 as two files for `posttrain init`: 1,000 labelled questions and 200 for the test.

    python benchmarks/banking77.py shared/banking77 bank      # the folder with the published train.csv and test.csv
    posttrain compare bank/banking20.csv --test bank/banking20_test.csv --minutes 10

BANKING77 (Casanueva et al., arXiv:2003.04807, CC-BY-4.0) has columns text and category.  The intents are drawn with a
seed from those with at least 60 training rows; each gives 50 rows of the published training split, 10 of the test one.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path

INTENTS, TRAIN_ROWS, TEST_ROWS, LEAST_ROWS = 20, 50, 10, 60


def by_intent(path: Path) -> dict[str, list[str]]:
    """The questions of each intent, in the file's order."""
    texts: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts[row["category"]].append(row["text"])
    return texts


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """Writes (text, category) rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "category"), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with the published train.csv and test.csv")
    parser.add_argument("output", type=Path, help="the folder to write banking20.csv and banking20_test.csv to")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    train, test = by_intent(asked.source / "train.csv"), by_intent(asked.source / "test.csv")
    draw = random.Random(asked.seed)
    intents = draw.sample(sorted(intent for intent, texts in train.items() if len(texts) >= LEAST_ROWS), INTENTS)
    asked.output.mkdir(parents=True, exist_ok=True)
    for name, source, count in (("banking20.csv", train, TRAIN_ROWS), ("banking20_test.csv", test, TEST_ROWS)):
        rows = [(text, intent) for intent in intents for text in draw.sample(source[intent], count)]
        write(asked.output / name, draw.sample(rows, len(rows)))
        print(f"{asked.output / name}: {len(rows)} rows, {len(intents)} intents")


if __name__ == "__main__":
    main()
