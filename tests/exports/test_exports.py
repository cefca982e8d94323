"""Exports reload with plain transformers and peft and say what the trained policy says; a damaged one is caught."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from babbler import Babbler
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import modeling_utils

from posttrain import losses
from posttrain.candidates.policy import Demonstration, PolicyCandidate
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.exports import merged, peft
from posttrain.exports._proof import Proof
from posttrain.optimisers import Adam
from posttrain.runs import DiskError
from posttrain.types import Candidate, Datum, LoRA, Message, Output, Row, Tokens, UserError

QUESTIONS = ("Where is my order?", "I was charged twice for invoice 2024-117.", "The printer is down.")
ANSWERS = ("good", "bad", "awful")
FORMATS = [peft, merged]


@dataclass(frozen=True)
class Taught:
    """A candidate that has learnt something, and what to prove its exports with."""

    candidate: PolicyCandidate
    probes: list[Datum]
    prompts: list[Tokens]

    def export(self, format_: ModuleType, folder: Path, policy: Any = None) -> Proof:
        candidate = self.candidate if policy is None else replace(self.candidate, policy=policy)
        return asyncio.run(format_.export(candidate, folder, self.probes, self.prompts))


@pytest.fixture(scope="module")
def taught(tiny_model_folder: Path) -> Iterator[Taught]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    policy = engine.base().fork("taught", LoRA(rank=4))
    candidate = PolicyCandidate("sft", "weights", policy, "Answer with one word.", Output(max_tokens=8),
                                demonstrations=(Demonstration("d", "The day is fine.", "great"),))
    rows = [Row(str(i), (Message("user", question),)) for i, question in enumerate(QUESTIONS)]
    probes = [policy.renderer.datum([*candidate.messages(row), Message("assistant", answer)])
              for row, answer in zip(rows, ANSWERS, strict=True)]
    prompts = [policy.renderer.prompt(candidate.messages(row)) for row in rows]

    async def teach() -> None:
        for _ in range(80):
            await policy.forward_backward(probes, losses.cross_entropy, normaliser=3)
            await policy.optim_step(Adam(5e-3))

    asyncio.run(teach())
    yield Taught(candidate, probes, prompts)  # type: ignore[arg-type]
    engine.close()


@pytest.mark.parametrize("format_", FORMATS)
def test_an_export_equals_what_was_trained(taught: Taught, format_: ModuleType, tmp_path: Path) -> None:
    proof = taught.export(format_, tmp_path / "export")
    assert proof.holds and proof.max_difference < 1e-4
    assert (proof.sequences, proof.answers_equal, proof.answers) == (3, 3, 3)
    assert json.loads((tmp_path / "export/proof.json").read_text())["max_difference"] == proof.max_difference
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_readme_of_an_export_answers_as_it_should(taught: Taught, format_: ModuleType, tmp_path: Path) -> None:
    taught.export(format_, tmp_path / "export")
    readme = (tmp_path / "export/README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    for i, question in enumerate(QUESTIONS):
        names: dict[str, Any] = {"folder": tmp_path / "export", "question": question}
        exec(code, names)
        (rollout,), = asyncio.run(taught.candidate.attempt([Row(str(i), (Message("user", question),))]))
        assert names["answer"] == rollout.answer == ANSWERS[i]


def test_a_merged_export_is_a_plain_model(taught: Taught, tiny_model_folder: Path, tmp_path: Path) -> None:
    taught.export(merged, tmp_path / "export")
    files = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not any(name.startswith("adapter") for name in files)
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "float32"
    ours, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "export", tiny_model_folder))
    assert ours.keys() == base.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert (ours[name] - base[name]).abs().max() > 1e-3


class Damaging(TorchPolicy):
    """Saves one adapter weight slightly wrong."""

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        await super().save(folder, optimiser=optimiser)
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        name = next(name for name in sorted(tensors) if name.endswith("down_proj.lora_B.weight"))
        tensors[name][0] += 0.05
        save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_export_is_caught_and_not_kept(taught: Taught, format_: ModuleType, tmp_path: Path) -> None:
    policy: Any = taught.candidate.policy
    with pytest.raises(UserError, match="not equal to the trained policy"):
        taught.export(format_, tmp_path / "export", Damaging(policy.engine, policy.adapter, trainable=True))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_as_everywhere_else(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors has an error of its own for it, which was a traceback."""

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(modeling_utils, "safe_save_file", full)
    with pytest.raises(DiskError, match="No space left on device") as caught:
        taught.export(merged, tmp_path / "export")
    assert caught.value.place and caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_forgotten_stop_token_is_caught(taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal log-probabilities are not enough: an export that never stops gives other answers."""
    written = merged.write_companions

    def forgetful(candidate: Any, policy: Any, folder: Path, load: str) -> None:
        written(candidate, policy, folder, load)
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": 0}))

    monkeypatch.setattr(merged, "write_companions", forgetful)
    with pytest.raises(UserError, match="0 of 3 greedy answers"):
        taught.export(merged, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_only_trained_weights_can_be_exported(taught: Taught, tmp_path: Path) -> None:
    prompted = replace(taught.candidate, kind="prompt", name="few_shot")
    for candidate in (prompted, Babbler(kind="floor")):
        for format_ in FORMATS:
            with pytest.raises(UserError, match="nothing to export"):
                asyncio.run(format_.export(_any(candidate), tmp_path / "export", taught.probes, taught.prompts))
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        taught.export(peft, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_an_export_without_probes_proves_nothing(taught: Taught, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to prove"):
        asyncio.run(peft.export(taught.candidate, tmp_path / "export", [], []))


def _any(candidate: Any) -> Candidate:
    return candidate
