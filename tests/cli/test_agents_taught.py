"""Agents that were taught together are exported and served together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Shell

from posttrain import api


def test_a_team_is_taught_exported_and_served(
    shell: Shell, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("sums")
    folder.mkdir()
    for split in ("train", "dev", "test"):
        calls = [{"name": "adder", "arguments": {"question": f"1 + 2 {split}"}, "said": 3}]
        row = {"input": f"1 and 2? {split}", "target": "3", "metadata": {"calls": calls}}
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "task.toml").write_text(
        '[grader]\nname = "exact"\n[output]\nmax_tokens = 8\n[environment]\nname = "tools"\nform = "python"\n'
        '[environment.agents.adder]\ndescription = "Adds."\ninstructions = "Add."\nmax_tokens = 4\n')
    taught = shell("teach", "sft", str(folder), "--model", str(tiny_model_folder), "--steps", "3", "--json").document
    assert (Path(taught["run"]) / "saved/agents/adder/adapter/adapter_model.safetensors").exists()
    shell("export", "latest", "--to", "peft", "--output", "out", "--json")
    assert Path("out/agents/adder/adapter_model.safetensors").exists()
    served: list[str] = []

    async def noted(given: Any, *_: Any) -> None:
        served.extend(given.fixed)

    monkeypatch.setattr("posttrain.server.app.serve", noted)
    api.serve(["latest"], workers=0)
    assert served == ["sft", "sft.adder"]
