#!/usr/bin/env python
"""Sampling: how much cheaper than generate of transformers, in one batch, and than vLLM?

    make peers                                          # once
    python benchmarks/sampling.py                       # 64 completions, of 64 prompts and of 8, and one alone
    make vllm                                           # once; Python 3.11 to 3.13 on x86-64
    python benchmarks/sampling.py --peer vllm
    python benchmarks/sampling.py --peer vllm-eager     # without its compiled graph

SmolLM2-135M in fp32, prompts of 150 tokens that share nothing (rows/prompts.json), completions of 32 tokens at
temperature 1.  First, both write greedily from the same prompts: the same tokens.  Ours in int8 (weights in 8 bits)
is asked of one stream, beside vLLM in fp32, and writes other tokens: benchmarks/int8.py says how many answers change.
One thread is compared by CPU time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from side_by_side import HERE, Side, measure_of, pairs, record, training_options

CASES = {  # prompts, completions of each, and the precision of ours
    "64 prompts": (64, 1, "float32"),
    "8 prompts x 8": (8, 8, "float32"),
    "one stream": (1, 1, "float32"),
    "one stream in int8": (1, 1, "int8"),
}
TOKENS = 32


@dataclass(frozen=True)
class Peer:
    """Its program, where its Python is, what more it is told, and what is asked of each case."""

    name: str
    program: str
    environment: str
    told: tuple[str, ...]
    targets: dict[str, float]

    @property
    def python(self) -> Path:
        return HERE.parent / self.environment / "bin" / "python"


PEERS = {
    "transformers": Peer(
        "transformers {} generate", "hf_sampling.py", ".venv-peers", (),
        {"64 prompts": 2.5, "8 prompts x 8": 2.5, "one stream": 1.0},
    ),
    "vllm": Peer(
        "vllm {}", "vllm_sampling.py", ".venv-vllm", ("float32",),
        {"64 prompts": 1.1, "8 prompts x 8": 1.1, "one stream": 1.0, "one stream in int8": 1.8},
    ),
}
PEERS["vllm-eager"] = replace(PEERS["vllm"], name="vllm {} eager", told=("float32", "eager"))
"""Compiled, as vLLM is by default, and not: the better of both is the one to be compared with."""


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="which question (default: all)")
    parser.add_argument("--peer", choices=PEERS, default="transformers", help="(default transformers)")
    parser.set_defaults(peers=None)
    given = parser.parse_args()
    chosen = PEERS[given.peer]
    cases = given.case or [*chosen.targets]
    for precision in ("float32", "int8"):
        if named := [case for case in cases if CASES[case][2] == precision]:
            answer(named, precision, chosen, given)


def answer(cases: list[str], precision: str, chosen: Peer, given: argparse.Namespace) -> None:
    """Answers the questions that are asked of one precision of ours."""
    file = HERE / "rows" / "prompts.json"
    with Side(Path(sys.executable), "posttrain_sampling.py", file, precision, threads=given.threads) as ours:
        model = ours.do("start")["model"]
        python = given.peers or chosen.python
        with Side(python, chosen.program, file, model, *chosen.told, threads=given.threads) as peer:
            if precision == "float32":
                refuse_unless_alike(ours, peer)
            for case in cases:
                prompts, group_size, _ = CASES[case]
                work = {"prompts": prompts, "group_size": group_size, "tokens": TOKENS}
                found = pairs(ours, peer, given.pairs, "sample", equal=(), **work, temperature=1.0)
                settings = work | {"threads": given.threads, "precision": precision}
                named = chosen.name.format(found[0].peers["version"])
                record(f"sampling, {case}", named, measure_of(given), chosen.targets[case], found, settings)


def refuse_unless_alike(ours: Side, peer: Side) -> None:
    """Raises RuntimeError unless both write the same greedily."""
    greedy = {"prompts": 8, "group_size": 1, "tokens": TOKENS, "temperature": 0.0}
    mine, theirs = (side.do("sample", **greedy)["completions"] for side in (ours, peer))
    if mine != theirs:
        raise RuntimeError("greedy completions differ; no ratio of that")


if __name__ == "__main__":
    main()
