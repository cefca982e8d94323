"""Two programs that do the same work, in turns, and the ratio of what it cost them.

Each side is a process of its own (sides/_worker.py), in its own environment, on as many threads as the other.  They
take turns, so that what else the machine does falls on both; a question is answered by the median of the pairs' ratios.
A ratio above 1 says that ours is cheaper.  Nothing is compared that differs in threads, in the tokens trained, in its
losses or in the norms of its gradients.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latest.json"
TOLERANCE = 1e-3  # relative, of losses and gradient norms of the steps that both began alike


class Side:
    """A worker process.  Use it as a context; it is ended with it."""

    def __init__(self, python: Path, program: str, *arguments: object, threads: int) -> None:
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [str(python), str(HERE / "sides" / program), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables,
        )

    def do(self, work: str, **arguments: Any) -> dict[str, Any]:
        """What the worker gave back.  Raises RuntimeError when it has died; what it said is on standard error."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": work, **arguments}) + "\n")
            self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(60)


@dataclass(frozen=True)
class Pair:
    """What one turn of each side came to."""

    ours: Mapping[str, Any]
    peers: Mapping[str, Any]

    def ratio(self, measure: str) -> float:
        return self.peers[measure] / self.ours[measure]


SAME = ("threads", "trained_tokens")
LEARNT = ("losses", "gradient_norms")

SAME_MEMORY = 0.001
"""Two processes that have loaded the same model hold the same to about half of that: peaks nearer are called equal."""


def pairs(
    ours: Side, peer: Side, count: int, work: str, *, same: Sequence[str] = SAME, equal: Sequence[str] = LEARNT,
    **arguments: Any,
) -> list[Pair]:
    """`count` turns of each side, after one to warm up that is looked at for equality and not timed.  Counts that have
    to be the `same` are looked at in every turn."""
    first = Pair(ours.do(work, **arguments), peer.do(work, **arguments))
    refuse_unless_equal(first, same, equal)
    found: list[Pair] = []
    for i in range(count):
        if i % 2:  # who comes first takes turns, too
            peers = peer.do(work, **arguments)
            found.append(Pair(ours.do(work, **arguments), peers))
        else:
            mine = ours.do(work, **arguments)
            found.append(Pair(mine, peer.do(work, **arguments)))
        refuse_unless_equal(found[-1], same, ())
        print(f"pair {i + 1} of {count}: {found[-1].ratio('cpu_seconds'):.2f} times by CPU time, "
              f"{found[-1].ratio('wall_seconds'):.2f} by the clock", flush=True)
    return found


def refuse_unless_equal(pair: Pair, same: Sequence[str] = SAME, equal: Sequence[str] = LEARNT) -> None:
    """Raises RuntimeError for sides that do not do the same; `equal` are numbers of steps that both began alike."""
    for what in same:
        if pair.ours[what] != pair.peers[what]:
            raise RuntimeError(f"{what}: ours {pair.ours[what]}, the peer's {pair.peers[what]}; no ratio of that")
    for what in equal:
        for i, (mine, theirs) in enumerate(zip(pair.ours[what], pair.peers[what], strict=True)):
            if not math.isclose(mine, theirs, rel_tol=TOLERANCE):
                raise RuntimeError(f"{what} of step {i}: ours {mine:.6g}, the peer's {theirs:.6g}; no ratio of that")


def record(
    question: str, peer: str, measure: str, target: float, found: Sequence[Pair], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer to one question, printed and kept beside those to others."""
    ratios = [pair.ratio(measure) for pair in found]
    counts = ("forwarded_tokens", "head_rows", "trained_tokens", "threads", "peak_bytes")
    answer = {
        "question": question,
        "peer": peer,
        "measure": measure,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target": target,
        "seconds": {
            "ours": statistics.median(pair.ours[measure] for pair in found),
            "peer": statistics.median(pair.peers[measure] for pair in found),
        },
        "counts": {"ours": last(found[-1].ours, counts), "peer": last(found[-1].peers, counts)},
        "settings": dict(settings),
        "peer_settings": found[-1].peers.get("settings", {}),
        "machine": machine(),
        "commit": commit(),
        "date": date.today().isoformat(),
    }
    keep(answer)
    verdict = "reached" if answer["ratio"] >= target else "NOT reached"
    print(f"{question}, {measure}: {answer['ratio']:.2f} times {peer} (of {len(found)}: {min(ratios):.2f} to "
          f"{max(ratios):.2f}); asked {target:g}: {verdict}", flush=True)
    for name, counted in answer["counts"].items():
        print(f"  {name}: " + ", ".join(f"{count:,.0f} {what.replace('_', ' ')}" for what, count in counted.items()))
    held = [counted.get("peak_bytes", 0) for counted in answer["counts"].values()]
    if all(held):
        more = held[0] / held[1] - 1
        said = "not above it" if more <= 0 else "equal" if more < SAME_MEMORY else "ABOVE it"
        print(f"  peak memory {held[0] / 1e9:.1f} GB, the peer's {held[1] / 1e9:.1f} ({more:+.3%}): {said}", flush=True)
    return answer


def training_options(description: str | None) -> argparse.ArgumentParser:
    """The options of every comparison of trainers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of each side (default 1)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    return parser


def measure_of(given: argparse.Namespace) -> str:
    return "cpu_seconds" if given.threads == 1 else "wall_seconds"


@contextmanager
def both_sides(rows: str, ours: str, peers: str, given: argparse.Namespace) -> Iterator[tuple[Side, Side]]:
    """Both programs with the same rows and one adapter file to begin with."""
    if not given.peers.exists():
        sys.exit(f"no peer to measure against at {given.peers}: run make peers")
    file = HERE / "rows" / f"{rows}.json"
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        with Side(Path(sys.executable), ours, file, start, threads=given.threads) as mine:
            model = mine.do("start", seed=0)["model"]
            with Side(given.peers, peers, file, start, model, threads=given.threads) as peer:
                yield mine, peer


def compare(
    question: str, rows: str, ours: str, peers: str, *, batch_size: int, steps: int, target: float,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Answers a question about training on the same rows."""
    with both_sides(rows, ours, peers, given) as (mine, peer):
        found = pairs(mine, peer, given.pairs, "epoch", batch_size=batch_size, steps=steps)
    settings = {"rows": rows, "batch_size": batch_size, "steps": steps, "threads": given.threads}
    return record(question, f"trl {found[0].peers['version']}", measure_of(given), target, found, settings)


def last(side: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: side[name] for name in names if name in side}


def keep(answer: Mapping[str, Any]) -> None:
    """Puts an answer in the place of an older one to the same question on such a machine."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    same = ("question", "peer", "measure", "machine")
    kept = [old for old in kept if any(old[name] != answer[name] for name in same)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([*kept, answer], indent=1) + "\n")


def machine() -> str:
    """The processor, how many cores of it, and, where that is told, the widest registers it has for products."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    flags = next((line.split() for line in told if line.startswith("flags")), [])
    widest = next((f", {name}" for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags), "")
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores{widest}"


def commit() -> str:
    """The commit measured, and `-dirty` when anything but results is not as it is there."""
    def said(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=HERE, capture_output=True, text=True).stdout.strip()

    changed = said("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude)results")
    return said("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
