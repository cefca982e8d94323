#!/usr/bin/env python
"""A step of GRPO, sampling and learning: how much cheaper than TRL's GRPOTrainer?

    make peers                                          # once: TRL in an environment of its own
    python benchmarks/grpo.py                           # 8 prompts of 150 tokens x 8 completions of 32 tokens
    python benchmarks/grpo.py --rows prompts            # only those that share nothing

SmolLM2-135M in fp32, LoRA of rank 16 on all linear layers (one adapter file that both begin with), AdamW, the same
prompts in the same order (rows/prompts.json, rows/prompts_shared.json), one update a step.  Each side samples its own
completions, all of 32 tokens and none like another.  First, ours computes the gradient of what the peer sampled: its
norm must be the peer's.  One thread is compared by CPU time, two by the clock.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager

from side_by_side import TOLERANCE, Side, both_sides, measure_of, pairs, record, training_options

CASES = {"prompts": 4.0, "prompts_shared": 5.0}
"""Rows: at least so many times TRL."""

WORK = {"rows": 8, "group_size": 8, "tokens": 32}


@contextmanager
def checked_sides(rows: str, given: argparse.Namespace) -> Iterator[tuple[Side, Side]]:
    """Both sides, once they have been seen to compute the same gradient of the same rollouts."""
    with both_sides(rows, "posttrain_grpo.py", "trl_grpo.py", given) as (ours, peer):
        sampled = peer.do("epoch", **WORK, steps=1)
        mine, theirs = ours.do("check", rollouts=sampled["rollouts"])["gradient_norm"], sampled["gradient_norms"][0]
        if not math.isclose(mine, theirs, rel_tol=TOLERANCE):
            raise RuntimeError(f"norm of the gradient: ours {mine:.6g}, the peer's {theirs:.6g}; no ratio of that")
        yield ours, peer


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--rows", choices=CASES, action="append", help="which question (default: both)")
    given = parser.parse_args()
    for rows in given.rows or CASES:
        with checked_sides(rows, given) as (ours, peer):
            found = pairs(ours, peer, given.pairs, "epoch", equal=(), **WORK, steps=1)
        settings = {"rows": rows, **WORK, "steps": 1, "threads": given.threads}
        peers_name = f"trl {found[0].peers['version']}"
        record(f"grpo step, {rows}", peers_name, measure_of(given), CASES[rows], found, settings)


if __name__ == "__main__":
    main()
