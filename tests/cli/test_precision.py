"""--precision int8: a bare model is judged, and served, so computed, and the run says so; an unknown one is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tickets import lay_out

from posttrain import api
from posttrain.cli.main import main

COMMAND = [sys.executable, "-c", "from posttrain.cli.main import main; main()", "evaluate"]


def test_a_model_is_judged_in_8_bits(tiny_model_folder: Path, tmp_path: Path) -> None:
    lay_out(tmp_path)

    def said(precision: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(tiny_model_folder), "tickets.csv", "--precision", precision, "--json"]
        return subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = said("int8")
    assert done.returncode == 0, done.stderr
    run = tmp_path / json.loads(done.stdout)["run"]
    assert list(json.loads((run / "config.json").read_text())["precision"].values()) == ["int8"]
    assert said("int4").returncode == 2


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_model_is_served_in_the_precision_asked_for(
    precision: Any, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: dict[str, Any] = {}

    async def listen(given: Any, *_: Any) -> None:
        served.update({name: candidate.policy.precision for name, candidate in given.fixed.items()})

    monkeypatch.setattr("posttrain.server.app.serve", listen)
    api.serve([str(tiny_model_folder)], port=0, precision=precision, workers=0)
    assert [*served.values()] == [precision]


@pytest.mark.parametrize("options", [[], ["--deterministic"]])
def test_a_model_is_served_deterministically_when_that_is_asked_for(
        options: list[str], tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[bool] = []

    async def listen(given: Any, *_: Any) -> None:
        served.extend(candidate.policy.engine.network.deterministic for candidate in given.fixed.values())

    monkeypatch.setattr("posttrain.server.app.serve", listen)
    monkeypatch.setattr("sys.argv", ["posttrain", "serve", str(tiny_model_folder), "--workers", "0", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None) and served == [bool(options)]
