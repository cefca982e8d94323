#!/usr/bin/env python
"""Supervised fine-tuning: how much cheaper than TRL's SFTTrainer on the same rows?

    make peers                                          # once: TRL in an environment of its own
    python benchmarks/sft.py                            # all questions: shared prompts by 8 and by 32, nothing shared
    python benchmarks/sft.py --rows nothing_shared --threads 2

SmolLM2-135M in fp32, LoRA of rank 16 on all linear layers (one adapter file that both begin with), AdamW, the same rows
in the same order; rows are pinned in rows/.  One thread is compared by CPU time, two by the clock.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from side_by_side import HERE, Side, pairs, record

CASES = {  # rows: (batch size, steps, at least so many times TRL)
    "shared_8": ("shared_prompt", 8, 4, 5.5),
    "shared_32": ("shared_prompt", 32, 2, 7.0),
    "nothing_shared": ("nothing_shared", 8, 4, 1.7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=CASES, action="append", help="which question (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="of each side (default 1)")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    given = parser.parse_args()
    if not given.peers.exists():
        parser.error(f"no peer to measure against at {given.peers}: run make peers")
    measure = "cpu_seconds" if given.threads == 1 else "wall_seconds"
    for name in given.rows or CASES:
        rows, batch_size, steps, target = CASES[name]
        file = HERE / "rows" / f"{rows}.json"
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "start"
            with Side(Path(sys.executable), "posttrain_sft.py", file, start, threads=given.threads) as ours:
                model = ours.do("start", seed=0)["model"]
                with Side(given.peers, "trl_sft.py", file, start, model, threads=given.threads) as peer:
                    found = pairs(ours, peer, given.pairs, "epoch", batch_size=batch_size, steps=steps)
        settings = {"rows": rows, "batch_size": batch_size, "steps": steps, "threads": given.threads}
        record(f"sft, {name}", f"trl {found[0].peers['version']}", measure, target, found, settings)


if __name__ == "__main__":
    main()
