#!/usr/bin/env python
"""Eight adapters on one base: what does it save to let them write, and learn, side by side?

    python benchmarks/adapters.py                       # decoding, and a sweep with and without dropping losers
    python benchmarks/adapters.py --question decoding

SmolLM2-135M in fp32, LoRA of rank 16.  Decoding: one stream of 64 tokens each, all on all linear layers, after prompts
that are cut to 16 tokens (rows/prompts.json): to read a long one costs the same together as one by one.  Sweep: eight
learning rates on 8 rows of examples/support_triage, three epochs at most, judged on 4 dev rows after each; once the
worse half is dropped after every epoch, once none is; against the eight trained one after another.  Both sides are
ours.  One thread is compared by CPU time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from side_by_side import HERE, SAME, Side, measure_of, pairs, record

QUESTIONS: dict[str, tuple[str, str, dict[str, Any], float]] = {  # what is asked, the work, how, at least so many times
    "decoding": ("8 adapters, one stream each", "decode", {"tokens": 64}, 3.0),
    "dropped": ("sweep of 8, losers dropped", "sweep", {"dropping": True}, 2.0),
    "kept": ("sweep of 8, none dropped", "sweep", {"dropping": False}, 1.0),
}


def same_of(how: Mapping[str, Any]) -> Sequence[str]:
    """Rates that are dropped train less: that is what is asked, and what is compared is eight rates tried."""
    return ("threads",) if how.get("dropping") else SAME


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    parser.add_argument("--question", choices=QUESTIONS, action="append", help="(default: all)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each side (default 3)")
    given = parser.parse_args()
    program = (Path(sys.executable), "posttrain_adapters.py", HERE / "rows" / "prompts.json")
    task = HERE.parent / "examples" / "support_triage"
    for name in given.question or QUESTIONS:
        question, work, how, target = QUESTIONS[name]
        with (  # processes of their own for each question, for their memory is compared
            Side(*program, task, "together", threads=given.threads) as ours,
            Side(*program, task, "one_by_one", threads=given.threads) as peer,
        ):
            found = pairs(ours, peer, given.pairs, work, same=same_of(how), equal=(), **how)
        if any(pair.ours.get("completions") != pair.peers.get("completions") for pair in found):
            raise RuntimeError("together they write something else; no ratio of that")
        settings = {"adapters": 8, **how, "threads": given.threads}
        record(question, "one after another", measure_of(given), target, found, settings)


if __name__ == "__main__":
    main()
