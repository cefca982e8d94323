"""Graded rollouts on disk: what a policy said while it was trained, to be read by people and by `jq`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from posttrain.environments._agents import MAIN, by_agent
from posttrain.runs import SCHEMA, Run, write_text
from posttrain.types import Rollout


def write_rollouts(run: Run, step: int, played: Sequence[list[Rollout]], rewards: Sequence[list[float]]) -> None:
    """Writes rollouts/step-00010.jsonl: a line for each rollout, in order.  `rewards` are those of the rollouts that
    have a score; the others failed and have reward null and an error."""
    lines = []
    for group, values in zip(played, rewards, strict=True):
        left = iter(values)
        lines += [_record(step, rollout, next(left) if rollout.score else None) for rollout in group]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(run.folder / "rollouts" / f"step-{step:05}.jsonl", text)


def forget_rollouts(run: Run, step: int) -> None:
    """Removes those of this step and later ones: a training that was killed goes on before it."""
    for path in (run.folder / "rollouts").glob("step-*.jsonl"):
        if int(path.stem.removeprefix("step-")) >= step:
            path.unlink()


def _record(step: int, rollout: Rollout, reward: float | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "step": step,
        "row": rollout.row.id,
        "prompt": "\n".join(f"{message.role}: {message.content}" for message in rollout.messages),
        "completion": rollout.answer,
        "reward": reward,
        "passed": rollout.score.passed if rollout.score else None,
        "stop_reason": rollout.completion.stop_reason if rollout.completion else "error",
        "turns": [{"completion": turn.completion.text, "reward": turn.reward} for turn in rollout.turns],
        "asked": [
            {"agent": name, "question": part.row.text, "answer": part.answer, "error": part.error}
            for name, part in by_agent(rollout)
            if name != MAIN
        ],
        "explanation": rollout.error or (rollout.score.explanation if rollout.score else ""),
    }
