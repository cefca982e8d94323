"""Keys and organisations: who has no key gets nothing, and who has one sees nothing of others."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from service import Service, service

from posttrain import api
from posttrain.types import UserError

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"n {i}"}, {"role": "assistant", "content": "well"}]} for i in range(12)
]
SHORT: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "learning_rate_multiplier": 10.0}}}


def client(found: Service, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=found.url, api_key=key, max_retries=0)


def made(data: Path, name: str, **more: Any) -> Any:
    [key] = api.keys("create", name, data=data, **more)
    return key


def test_organisations_see_nothing_of_each_other(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    one, other = made(data, "one", organisation="acme"), made(data, "other", organisation="umbrella")
    asks = made(data, "asks", organisation="acme", scopes=["ask"])
    with service(tiny_model_folder, data) as found:
        for key in ("none", one.secret[:-1], ""):
            with pytest.raises(openai.AuthenticationError):
                client(found, key or "x").models.list()
        mine, theirs, asking = (client(found, key.secret) for key in (one, other, asks))
        file = mine.files.create(file=("r.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode()), purpose="fine-tune")
        job = mine.fine_tuning.jobs.create(model=found.model, training_file=file.id, method=SHORT)
        ended = found.until(lambda: mine.fine_tuning.jobs.retrieve(job.id), lambda seen: seen.finished_at)
        assert ended.status == "succeeded", found.log()
        model, messages = ended.fine_tuned_model, [{"role": "user", "content": "n 3"}]
        assert model.split(":")[2] == "acme"
        for who in (mine, asking):
            assert who.chat.completions.create(model=model, messages=messages).choices
        checkpoint = mine.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
        for call in (
                lambda: theirs.files.retrieve(file.id), lambda: theirs.files.content(file.id), lambda: theirs.files.delete(file.id),
                lambda: theirs.files.content(ended.result_files[0]), lambda: theirs.fine_tuning.jobs.retrieve(job.id),
                lambda: theirs.fine_tuning.jobs.cancel(job.id), lambda: theirs.fine_tuning.jobs.pause(job.id),
                lambda: theirs.fine_tuning.jobs.list_events(job.id), lambda: theirs.fine_tuning.jobs.checkpoints.list(job.id),
                lambda: theirs.models.retrieve(model), lambda: theirs.models.delete(model),
                lambda: theirs.chat.completions.create(model=model, messages=messages),
                lambda: theirs.chat.completions.create(model=checkpoint, messages=messages)):
            with pytest.raises(openai.NotFoundError):
                call()
        for asked in ({"model": model, "training_file": file.id}, {"model": found.model, "training_file": file.id}):
            with pytest.raises(openai.BadRequestError):
                theirs.fine_tuning.jobs.create(**asked)
        assert not theirs.files.list().data and not theirs.fine_tuning.jobs.list().data
        assert [each.id for each in theirs.models.list()] == [found.model]
        for call in (asking.files.list, asking.fine_tuning.jobs.list, lambda: asking.models.delete(model),
                     lambda: asking.fine_tuning.alpha.graders.validate(grader={"type": "python", "name": "x", "source": ""})):
            with pytest.raises(openai.PermissionDeniedError, match="may not teach"):
                call()
        api.keys("revoke", one.id, data=data)
        with pytest.raises(openai.AuthenticationError):
            mine.files.list()


def test_no_secret_is_kept(tmp_path: Path) -> None:
    key = made(tmp_path, "laptop", days=1)
    assert key.secret.startswith("sk-posttrain-") and key.expires_at - key.created_at == 86_400
    held = sqlite3.connect(tmp_path / "posttrain.db").execute("select * from keys").fetchall()
    assert key.secret not in repr(held) and len(held) == 1
    assert [each.secret for each in api.keys("list", data=tmp_path)] == [""]


def test_an_expired_key_is_none(tiny_model_folder: Path, tmp_path: Path) -> None:
    key = made(tmp_path / "data", "short", days=8 / 86_400)
    with service(tiny_model_folder, tmp_path / "data", "--workers", "1") as found:
        time.sleep(max(0.0, key.expires_at + 1 - time.time()))
        with pytest.raises(openai.AuthenticationError, match="expired"):
            client(found, key.secret).models.list()


def test_what_is_wrong_with_a_key_is_said(tmp_path: Path) -> None:
    for wrong, said in (({"organisation": "a:b"}, "organisation"), ({"scopes": ["rule"]}, "rule"), ({"scopes": []}, "scope")):
        with pytest.raises(UserError, match=said):
            made(tmp_path, "x", **wrong)
    with pytest.raises(UserError, match="no key 'key-1'"):
        api.keys("revoke", "key-1", data=tmp_path)
    with pytest.raises(UserError, match="create what"):
        api.keys("create", data=tmp_path)


def test_the_command_and_an_open_door(tmp_path: Path, tiny_model_folder: Path) -> None:
    posttrain = str(Path(sys.executable).with_name("posttrain"))

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([posttrain, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    refused = said("serve", str(tiny_model_folder), "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2 and "posttrain keys create" in refused.stderr
    assert "no keys" in said("keys", "list").stdout
    secret = said("keys", "create", "laptop", "--organisation", "acme").stdout.strip()
    assert secret.startswith("sk-posttrain-") and "\n" not in secret
    shown = said("keys", "list", "--json")
    [key] = json.loads(shown.stdout)["keys"]
    assert key["organisation"] == "acme" and key["scopes"] == ["ask", "teach"] and secret not in shown.stdout
    assert json.loads(said("keys", "revoke", key["id"], "--json").stdout)["keys"] == []
