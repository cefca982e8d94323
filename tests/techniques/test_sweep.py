"""Several settings side by side: the worse half is dropped after every round, and the best is what is learnt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lessons import answers, base, only, reviews, score

from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.runs import Budget, Run, read_json
from posttrain.techniques import _chain as chain
from posttrain.techniques import _sweep, sft
from posttrain.types import UserError

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-3, 1e-2, 1e-3)
CONFIGS = {f"learning_rate={rate:g}": sft.Config(learning_rate=rate, epochs=6, patience=6) for rate in RATES}


def test_the_best_is_kept_and_the_others_cost_little(tmp_path: Path) -> None:
    task = reviews()
    start = base(task)
    swept = asyncio.run(chain.teach("sft", start, task, Run(tmp_path / "sweep"), last=CONFIGS))
    assert isinstance(swept, PolicyCandidate)
    epochs = {name: max(record["epoch"] for record in Run(tmp_path / "sweep" / "sft" / name).metrics())
              for name in CONFIGS}
    assert sorted(epochs.values()) == [1, 1, 1, 1, 2, 2, 3, 6]
    kept = next(name for name, count in epochs.items() if count == 6)
    assert kept in {"learning_rate=0.01", "learning_rate=0.003"}
    assert f"{kept} is kept after 6 rounds" in swept.details["sweep"]
    assert swept.details["sweep"].count(" after 1") == 4
    alone = asyncio.run(sft.teach(start, task, Run(tmp_path / "alone"), CONFIGS[kept]))
    assert answers(swept, task.rows("test")) == answers(alone, task.rows("test"))
    assert score(swept, task) == score(alone, task) > score(start, task)
    one = alone.details["training"]["trained_tokens"]
    assert swept.details["training"]["trained_tokens"] == pytest.approx(one / 6 * sum(epochs.values()))


def test_a_sweep_that_was_killed_goes_on_with_those_that_were_left(tmp_path: Path) -> None:
    task = reviews()
    whole = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "whole"), last=CONFIGS))
    original, rounds = _sweep.Sweep._halve, []

    def until_killed(sweep: _sweep.Sweep) -> None:
        original(sweep)
        rounds.append(list(sweep.alive))
        if len(rounds) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_sweep.Sweep, "_halve", until_killed)
        asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "killed"), last=CONFIGS))
    assert read_json(tmp_path / "killed" / "sft" / "sweep.json")["alive"] == rounds[-1] and len(rounds[-1]) == 2
    again = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "killed"), last=CONFIGS))
    assert answers(again, task.rows("test")) == answers(whole, task.rows("test"))
    for name in CONFIGS:
        logs = [[{**record, "seconds": 0} for record in Run(tmp_path / which / "sft" / name).metrics()]
                for which in ("whole", "killed")]
        assert logs[0] == logs[1]


def test_one_that_fails_is_dropped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_step = sft.Training.one_step

    async def diverging(training: sft.Training, batch: list, total: int) -> float:  # type: ignore[type-arg]
        if training.config.learning_rate > 1:
            raise UserError("the gradient is not finite: training has diverged")
        return await one_step(training, batch, total)

    monkeypatch.setattr(sft.Training, "one_step", diverging)
    task, wild = reviews(), sft.Config(learning_rate=1e9)
    configs = {"wild": wild, "tame": sft.Config(learning_rate=1e-2, epochs=3)}
    swept = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "one"), last=configs))
    assert "wild failed (the gradient is not finite: training has diverged)" in swept.details["sweep"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="diverged"):
        asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "all"), last={"a": wild, "b": wild}))


def test_what_cannot_be_swept_is_refused(tmp_path: Path) -> None:
    task = reviews()
    with pytest.raises(UserError, match="retrieval cannot be swept"):
        asyncio.run(chain.teach("retrieval", base(task), task, Run(tmp_path), last={"a": None, "b": None}))
    with pytest.raises(UserError, match="budget was used up"):
        asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path, budget=Budget(minutes=0)), last=CONFIGS))


def test_what_they_all_begin_with_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, task, look_first = [], only(reviews(), 8), sft.Training.look_first

    async def noted(training: sft.Training) -> sft.Seen:
        looks.append(training.run.folder.name)
        return await look_first(training)

    monkeypatch.setattr(sft.Training, "look_first", noted)
    configs = {
        "a": sft.Config(learning_rate=1e-3, epochs=1),
        "b": sft.Config(learning_rate=1e-2, epochs=1),
        "long": sft.Config(learning_rate=1e-2, epochs=1, brief=False),  # other prompts
    }
    run = Run(tmp_path)
    asyncio.run(_sweep.teach(sft, base(task), task, run, configs))
    first = {name: run.child(name).metrics()[0] for name in configs}
    assert first["a"]["epoch"] == 0 and first["a"]["judged_loss"] == first["b"]["judged_loss"]
    assert looks == (["a", "long"] if sft.brief(task.output) else ["a"])


def test_trainings_of_one_engine_keep_step(tiny_model_folder: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    engine.network.threads.most, calls, task = 1, [], only(reviews(), 8)
    trained_logprobs = engine.network.trained_logprobs

    def noted(batch: Any, adapters: Sequence[str]) -> Any:
        calls.append(len({*adapters}))
        return trained_logprobs(batch, adapters)

    monkeypatch.setattr(engine.network, "trained_logprobs", noted)
    start = PolicyCandidate("tiny", "prompt", engine.base(), task.instructions, task.output)
    configs = {f"{rate:g}": sft.Config(learning_rate=rate, epochs=2, batch_size=4) for rate in (1e-3, 1e-2, 3e-2)}

    def swept(name: str) -> list[dict[str, Any]]:
        run = Run(tmp_path / name)
        asyncio.run(_sweep.teach(sft, start, task, run, configs))
        return [{**record, "seconds": 0} for config in configs for record in run.child(config).metrics()]

    try:
        found = swept("in step")
        assert [count for count in calls if count > 1] == [3, 3, 2, 2]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TorchPolicy, "keep_step", lambda *_: lambda _: None)
            wanted = swept("in turns")
    finally:
        engine.close()
    assert [len(record) for record in found] == [len(record) for record in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
