#!/usr/bin/env python
"""Direct preference optimisation: how much cheaper than TRL's DPOTrainer on the same pairs?

    make peers                                          # once: TRL in an environment of its own
    python benchmarks/dpo.py

SmolLM2-135M in fp32, LoRA of rank 16 on all linear layers (one adapter file that both begin with, and that is the
reference), AdamW, 8 pairs a step, the same in the same order: rows/pairs.json.  One thread is compared by CPU time.
"""

from __future__ import annotations

from side_by_side import compare, training_options

if __name__ == "__main__":
    given = training_options(__doc__).parse_args()
    compare("dpo", "pairs", "posttrain_dpo.py", "trl_dpo.py", batch_size=8, steps=2, target=2.5, given=given)
