#!/usr/bin/env python
"""Sampling: how much cheaper than generate of transformers, in one batch?

    make peers                                          # once
    python benchmarks/sampling.py                       # 64 completions, of 64 prompts and of 8

SmolLM2-135M in fp32, prompts of 150 tokens that share nothing (rows/prompts.json), completions of 32 tokens at
temperature 1.  First, both write greedily from the same prompts: the same tokens.  One thread is compared by CPU time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from side_by_side import HERE, Side, measure_of, pairs, record, training_options

CASES = {"64 prompts": (64, 1), "8 prompts x 8": (8, 8), "one stream": (1, 1)}
TARGETS = {"64 prompts": 2.5, "8 prompts x 8": 2.5, "one stream": 1.0}
TOKENS = 32


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="which question (default: all)")
    given = parser.parse_args()
    file = HERE / "rows" / "prompts.json"
    with Side(Path(sys.executable), "posttrain_sampling.py", file, threads=given.threads) as ours:
        model = ours.do("start")["model"]
        with Side(given.peers, "hf_sampling.py", file, model, threads=given.threads) as peer:
            greedy = {"prompts": 8, "group_size": 1, "tokens": TOKENS, "temperature": 0.0}
            mine, theirs = (side.do("sample", **greedy)["completions"] for side in (ours, peer))
            if mine != theirs:
                raise RuntimeError("greedy completions differ; no ratio of that")
            for case in given.case or CASES:
                prompts, group_size = CASES[case]
                work = {"prompts": prompts, "group_size": group_size, "tokens": TOKENS}
                found = pairs(ours, peer, given.pairs, "sample", equal=(), **work, temperature=1.0)
                peers_name = f"transformers {found[0].peers['version']} generate"
                settings = work | {"threads": given.threads}
                record(f"sampling, {case}", peers_name, measure_of(given), TARGETS[case], found, settings)


if __name__ == "__main__":
    main()
