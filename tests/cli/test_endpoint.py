"""A live OpenAI-compatible endpoint (our own server over a toy): compared, chatted with, and asked again with --like."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Shell
from live_server import serving

from posttrain import tasks
from posttrain.api import comparing
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.money import Prices
from posttrain.comparison.wording import percent
from posttrain.engines.toy import ToyPolicy
from posttrain.types import Output

LABELS = {"account", "billing", "shipping"}


@pytest.fixture
def endpoint(shell: Shell) -> Iterator[str]:
    """chat:URL#NAME of a server over a toy that knows the words of tickets.csv."""
    shell("init", "tickets.csv")
    toml = Path("tasks/tickets/task.toml")  # a toy spells, and has to have room for that
    toml.write_text(re.sub("max_tokens = .*", "max_tokens = 60", toml.read_text()))
    task = tasks.load("tasks/tickets")
    words = ToyPolicy.open(["label", *LABELS, *(row.text for row in task.rows("train"))])
    toy = PolicyCandidate("toy", "prompt", words, "", Output(max_tokens=24))
    with serving({"toy": toy}) as url:
        yield f"chat:{url}/v1#toy"


def test_an_endpoint_is_prompted_compared_and_talked_to(shell: Shell, endpoint: str) -> None:
    said = shell("compare", "tickets.csv", "--candidates", "nearest,base,few_shot", "--model", endpoint,
                 "--price-input", "2", "--price-output", "8")
    assert said.code == 0, said.err
    assert f"no estimate: how fast {endpoint}" in " ".join(said.out.split())
    report = shell("show", "--json").document
    by_name = {one["name"]: one for one in report["candidates"]}
    assert by_name["base"]["kind"] == "prompt" and by_name["base"]["model"] == endpoint
    assert by_name["base"]["completion_tokens_per_request"] > 0
    assert by_name["few_shot"]["one_off_cost"] > 0 == by_name["base"]["one_off_cost"], "searching a prompt is paid for"
    assert by_name["few_shot"]["cost_unit"] == "$"
    replies = (Path(report["run"]) / "replies.jsonl").read_text().splitlines()
    assert len(replies) >= by_name["base"]["n"], "what was paid for is kept"

    prices = comparing.question(like="latest", models=[endpoint]).settings.prices
    assert (prices.input_per_million, prices.output_per_million) == (2, 8)
    other = comparing.question(like="latest", models=["chat:http://127.0.0.1:9/v1#other"])
    assert other.settings.prices == Prices(), "what another endpoint costs is not known"

    talked = shell("chat", endpoint, "-m", "where is the parcel", "-m", "and now", "--json").document
    assert talked["model"] == endpoint
    assert [reply["error"] for reply in talked["replies"]] == ["", ""]
    assert all(reply["answer"] for reply in talked["replies"])

    (reply,) = shell("chat", "latest/few_shot", "-m", "where is the parcel", "--json").document["replies"]
    assert reply["answer"] in LABELS, "the saved prompt, with its output form, behind the same endpoint"


def test_beside_a_local_model_an_endpoint_is_only_not_trained(
        shell: Shell, endpoint: str, tiny_model_folder: Path) -> None:
    said = shell("compare", "tickets.csv", "--candidates", "constant,base,sft", "--model", endpoint,
                 "--model", str(tiny_model_folder), "--minutes", "0.4", "--json")
    assert said.code == 0, said.err
    names = {one["name"] for one in said.document["candidates"]}
    assert {"constant", f"base@{endpoint}", f"base@{tiny_model_folder}"} <= names
    assert f"sft left out for {endpoint}: an endpoint can only be prompted" in said.document["notes"]
    assert names == {"constant", f"base@{endpoint}", f"base@{tiny_model_folder}", f"sft@{tiny_model_folder}"} or any(
        note.startswith(f"sft@{tiny_model_folder} left out") for note in said.document["notes"]), "or learnt nothing"


def test_like_leaves_out_what_an_endpoint_cannot_be_taught(shell: Shell, endpoint: str, tiny_model_folder: Path) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,base,sft", "--model", str(tiny_model_folder),
          "--minutes", "0.4")
    first = shell("show", "--json").document
    said = shell("compare", "--like", "latest", "--model", endpoint, "--json")
    assert said.code == 0, said.err
    assert {one["name"] for one in said.document["candidates"]} == {"constant", "base"}
    assert any(note.startswith("sft left out: ") for note in said.document["notes"])
    like = said.document["like"]
    assert like["candidate"] == first["recommendation"]["candidate"]
    assert like["run"] == first["run"]
    assert like["answer"] in (True, False, None) and like["sentence"].startswith("The old winner, ")
    config = json.loads((Path(said.document["run"]) / "config.json").read_text())
    assert config["like"] == first["run"] and config["models"] == [endpoint]
    assert said.document["yours"] is None and config["settings"]["on_trial"] == [endpoint], "it is tried, and not run yet"
    again = shell("compare", "--like", "latest", "--model", endpoint, "--json").document
    assert again["yours"] is None, "nor the second time"
    assert shell("compare", "--resume", "latest", "--json").document["yours"] is None

    told = shell("compare", "--like", first["run"], "--model", endpoint)
    assert "The old winner, " in told.out.split("next:")[1]
    refused = shell("compare", "--like", first["run"], "--model", endpoint, "--candidates", "sft")
    assert refused.code == 2 and "can only be prompted" in refused.err


def test_like_with_floors_alone_says_that_no_model_was_tried(shell: Shell, endpoint: str) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,nearest")
    like = shell("compare", "--like", "latest", "--model", endpoint, "--json").document["like"]
    assert like["answer"] is True
    assert like["sentence"] == (
        "The old winner, nearest, still wins, but nothing with a language model was compared, so no other model was tried."
    )


def test_like_on_another_local_model_also_when_it_is_gone_on_with(shell: Shell, tiny_model_folder: Path) -> None:
    shutil.copytree(tiny_model_folder, "other")
    shell("compare", "tickets.csv", "--candidates", "base", "--model", str(tiny_model_folder))
    first = shell("show", "--json").document
    score = percent(first["candidates"][0]["score"])
    like = shell("compare", "--like", "latest", "--model", "other", "--json").document["like"]
    assert like == {
        "run": first["run"], "candidate": "base", "answer": False,
        "sentence": f"The old choice (there was no clear winner), base on {tiny_model_folder} ({score}), is chosen "
                    f"again, but there is no clear winner, on other ({score})."}
    resumed = shell("compare", "--resume", "latest", "--json").document
    assert resumed["like"] == like and resumed["run"] != first["run"]


def test_like_refuses_another_task_an_unfinished_run_and_no_model(shell: Shell, endpoint: str) -> None:
    shell("compare", "tickets.csv", "--candidates", "constant,nearest")
    (run,) = Path("runs").glob("*-compare")
    assert "another model has to be named" in shell("compare", "--like", "latest").err
    with Path("tasks/tickets/train.jsonl").open("a") as file:
        file.write('{"input": "one more", "target": "billing"}\n')
    changed = shell("compare", "--like", "latest", "--model", endpoint)
    assert changed.code == 2 and "the task has changed since this run was started" in changed.err
    (run / "report.json").unlink()
    Path("tasks/tickets/train.jsonl").write_text(
        "\n".join(Path("tasks/tickets/train.jsonl").read_text().splitlines()[:-1]) + "\n")
    assert "no report" in shell("compare", "--like", "latest", "--model", endpoint).err
    assert len(list(Path("runs").glob("*-compare"))) == 1


def test_what_an_evaluated_endpoint_answered_is_kept(shell: Shell, endpoint: str) -> None:
    judged = shell("evaluate", endpoint, "tasks/tickets", "--json").document
    replies = [json.loads(line) for line in (Path(judged["run"]) / "replies.jsonl").read_text().splitlines()]
    assert len(replies) == judged["n"] and all(reply["reply"]["texts"] for reply in replies)


def test_an_endpoint_cannot_be_taught(shell: Shell, endpoint: str) -> None:
    said = shell("teach", "sft", "tickets.csv", "--model", endpoint)
    assert said.code == 2 and "can only be prompted" in said.err
    taught = shell("teach", "few_shot", "tickets.csv", "--model", endpoint, "--json")
    assert taught.code == 0, taught.err
    assert Path(taught.document["run"], "saved", "candidate.json").exists()
