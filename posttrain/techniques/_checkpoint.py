"""Checkpoints of a training: one that was killed goes on from the newest, to the same bytes as one that was not.

    checkpoints/000007/   the adapter, the optimiser's state, and state.json: what the loop knew

A checkpoint is written beside the others, flushed, and renamed; then older ones go.  So whenever a kill comes, the
newest is whole.  What was logged after it is cut off, for those steps will be logged again.  A loop writes one at least
after whatever it keeps elsewhere (its best policy), so that going on never meets a file from later on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.runs import SCHEMA, Run, disk_errors, read_json, write_json
from posttrain.techniques._team import Team
from posttrain.types import Policy

FOLDER, STATE = "checkpoints", "state.json"
PARTIAL = ".partial"


class Checkpoints:
    """Those of one training in the folder of its run."""

    def __init__(self, run: Run, policy: Policy | Team) -> None:
        self.run, self.policy = run, policy

    async def restore(self) -> dict[str, Any] | None:
        """Puts policy, log and clock back to the newest checkpoint.  What the loop knew then; None: there is none, and
        what an earlier start may have logged is removed."""
        kept = checkpoints(self.run.folder)
        if not kept:
            self.run.cut_log(0)
            return None
        found = read_json(kept[-1] / STATE)
        await self.policy.load(kept[-1])
        self.run.cut_log(found["log_bytes"])
        self.run.started -= found["seconds"]
        return dict(found["loop"])

    async def write(self, loop: Mapping[str, Any]) -> None:
        """Keeps policy and optimiser, and what the `loop` knows."""
        folder, kept = self.run.folder / FOLDER, checkpoints(self.run.folder)
        wanted = folder / f"{int(kept[-1].name) + 1 if kept else 1:06}"
        partial = wanted.with_name(wanted.name + PARTIAL)
        with disk_errors(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        await self.policy.save(partial, optimiser=True)
        state = {"schema": SCHEMA, "seconds": self.run.seconds, "log_bytes": self.run.log_bytes(), "loop": loop}
        write_json(partial / STATE, state)
        with disk_errors(folder):
            for path in (*partial.rglob("*"), partial):
                flush(path)
            partial.rename(wanted)
            flush(folder)
            for path in kept:
                shutil.rmtree(path)
        self.run.checkpoint = wanted


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints in the folder of a run, oldest first, those left out that a kill has cut short."""
    return sorted(path for path in (run / FOLDER).glob("*") if not path.name.endswith(PARTIAL))


def flush(path: Path) -> None:
    """Sees to it that a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
