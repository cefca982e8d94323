#!/usr/bin/env python
"""Supervised fine-tuning: how much cheaper than TRL's SFTTrainer on the same rows?

    make peers                                          # once: TRL in an environment of its own
    python benchmarks/sft.py                            # all: shared prompts by 8 and by 32, nothing shared, episodes
    python benchmarks/sft.py --rows nothing_shared --threads 2

SmolLM2-135M in fp32, LoRA of rank 16 on all linear layers (one adapter file that both begin with), AdamW, the same rows
in the same order; rows are pinned in rows/.  One thread is compared by CPU time, two by the clock.
"""

from __future__ import annotations

from side_by_side import compare, training_options

CASES = {  # rows: (batch size, steps, at least so many times TRL)
    "shared_8": ("shared_prompt", 8, 4, 5.5),
    "shared_32": ("shared_prompt", 32, 2, 7.0),
    "nothing_shared": ("nothing_shared", 8, 4, 1.7),
    "episodes": ("episodes", 8, 4, 1.0),  # turns and forks: deep trees
}


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--rows", choices=CASES, action="append", help="which question (default: all)")
    given = parser.parse_args()
    for name in given.rows or CASES:
        rows, batch_size, steps, target = CASES[name]
        compare(
            f"sft, {name}", rows, "posttrain_sft.py", "trl_sft.py",
            batch_size=batch_size, steps=steps, target=target, given=given,
        )


if __name__ == "__main__":
    main()
