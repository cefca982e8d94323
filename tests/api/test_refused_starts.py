"""What is refused leaves no run: `latest` stays what it was.  And what a run's names mean."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import posttrain
from posttrain import tasks
from posttrain.api import places, using
from posttrain.api.engines import opened
from posttrain.engines.torch.base import choose_precision
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import UserError

NOWHERE = "chat:http://127.0.0.1:9/v1#nobody"


def runs() -> list[str]:
    return sorted(path.name for path in Path("runs").glob("*/"))


def a_row_too_long() -> None:
    path = Path("tasks/tickets/train.jsonl")
    first, *others = path.read_text().splitlines()
    row = {**json.loads(first), "input": "the printer is down and the parcel is late " * 200}
    path.write_text("\n".join([json.dumps(row), *others]) + "\n")


def no_train_rows() -> None:
    Path("tasks/tickets/train.jsonl").unlink()


REFUSED: dict[str, Callable[[str], Any]] = {
    "compare, no such model": lambda _: posttrain.compare("tasks/tickets", candidates=["base"], models=["./none"]),
    "compare, a bad endpoint": lambda _: posttrain.compare("tasks/tickets", models=["chat:localhost"]),
    "teach, no such model": lambda _: posttrain.teach("sft", "tasks/tickets", model="./none"),
    "teach an endpoint": lambda _: posttrain.teach("sft", "tasks/tickets", model=NOWHERE),
    "teach, no training rows": lambda model: (no_train_rows(), posttrain.teach("sft", "tasks/tickets", model=model)),
    "compare, no training rows": lambda _: (no_train_rows(), posttrain.compare("tasks/tickets", candidates=["nearest"])),
    "teach, a row too long": lambda model: (a_row_too_long(), posttrain.teach("sft", "tasks/tickets", model=model)),
    "evaluate, no such run": lambda _: posttrain.evaluate("./none", "tasks/tickets"),
    "compare, a model nobody asks": lambda model: posttrain.compare("tasks/tickets", candidates=["nearest"], models=[model]),
    "compare, prices of tokens and no endpoint": lambda _: posttrain.compare(
        "tasks/tickets", candidates=["nearest"], prices=posttrain.Prices(input_per_million=2, output_per_million=8)),
    "compare, a price of the device and nothing on it": lambda _: posttrain.compare(
        "tasks/tickets", candidates=["base"], models=[NOWHERE], prices=posttrain.Prices(per_hour=2)),
    "compare, on another model that is none": lambda _: posttrain.compare(like="latest", models=["./nowhere"]),
    "answers under the name of a technique": lambda _: posttrain.compare(
        "tasks/tickets", candidates=["constant", "nearest"], answers={"nearest": "tickets.csv"}),
    "answers under the name of a chain": lambda _: posttrain.compare(
        "tasks/tickets", candidates=["constant"], answers={"retrieval+sft@m": "tickets.csv"}),
    "answers that miss rows": lambda _: posttrain.compare("tasks/tickets", answers={"ours": "new.csv"}),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_refused_start_leaves_no_run_behind(refused: Callable[[str], Any], tiny_model_folder: Path) -> None:
    posttrain.compare("tickets.csv", candidates=["constant", "nearest"])
    before = runs()
    with pytest.raises(UserError):
        refused(str(tiny_model_folder))
    assert runs() == before
    assert posttrain.predict("latest", ["where is the parcel"])[0].answer


def test_a_run_that_did_something_is_kept_however_it_ends(tiny_model_folder: Path) -> None:
    """An error after the first candidate finished: what it cost is not thrown away."""
    posttrain.init("tickets.csv")
    a_row_too_long()
    with pytest.raises(UserError, match="do not fit"):
        posttrain.compare("tasks/tickets", candidates=["constant", "sft"], models=[str(tiny_model_folder)])
    (run,) = runs()
    assert (Path("runs") / run / "candidates" / "constant" / "result.json").exists()
    with pytest.raises(UserError, match="has no winner yet") as refusal:
        posttrain.predict("latest", ["where is the parcel"])
    assert f"--resume runs/{run}" in refusal.value.remedy


def test_a_candidate_is_found_by_run_by_name_and_by_path() -> None:
    result = posttrain.compare("tickets.csv", candidates=["constant", "nearest"])
    saved = Path(result.run) / "candidates" / "constant" / "saved"
    run = Path(result.run).name
    for place in ("latest/constant", f"{run}/constant", f"{result.run}/constant", str(saved), str(saved.resolve())):
        found = places.find_saved(place)
        assert found is not None and found.resolve() == saved.resolve()
        assert places.run_of(found).samefile(result.run)
    assert places.find_saved("./a-model") is None
    with pytest.raises(UserError, match="no candidate 'linear'"):
        places.find_saved("latest/linear")


def test_a_chain_whose_end_learnt_nothing_keeps_what_it_began_with(tiny_model_folder: Path) -> None:
    lesson = posttrain.teach("sft+grpo", "tickets.csv", model=str(tiny_model_folder), steps=1)
    assert lesson.technique == "sft" and "grpo learnt nothing" in lesson.notes[0]
    assert lesson.notes[0].endswith("what sft taught is kept")
    written = json.loads((lesson.folder / "result.json").read_text())
    assert written["technique"] == "sft" and tuple(written["notes"]) == lesson.notes
    assert posttrain.evaluate("latest", "tickets.csv").score == lesson.after.score


def test_export_takes_every_way_to_name_a_candidate(tiny_model_folder: Path) -> None:
    lesson = posttrain.teach("sft", "tickets.csv", model=str(tiny_model_folder), steps=2)
    relative = lesson.folder / "saved"
    assert not relative.is_absolute()
    for place in (str(relative), str(lesson.folder), "latest"):
        proof = posttrain.export(place, "peft", "out")
        assert proof.max_difference <= proof.tolerance
        shutil.rmtree("out")
    compared = Path(posttrain.compare("tickets.csv", candidates=["constant", "nearest"]).run)
    shutil.copytree(relative, compared / "candidates" / "sft" / "saved")  # as if it had been compared
    posttrain.export("latest/sft", "peft", "out")
    shutil.rmtree("out")
    with pytest.raises(UserError, match="constant has no trained weights"):
        posttrain.export("latest/constant", "peft", "out")
    with pytest.raises(UserError, match="no run called 'nowhere'"):
        posttrain.export("nowhere", "peft", "out")
    shutil.copytree(relative, "elsewhere")
    with pytest.raises(UserError, match="outside of its run"):
        posttrain.export("elsewhere", "peft", "out")


def test_an_export_is_compared_on_its_own_answers_where_none_are_known(tiny_model_folder: Path) -> None:
    posttrain.teach("sft", "tickets.csv", model=str(tiny_model_folder), steps=2)
    known = tasks.load("tasks/tickets").rows("dev")[:3]
    rows = [replace(known[0], target=None), known[1], replace(known[2], target=None)]
    with opened(precision="float32") as engines:
        candidate: Any = places.load_candidate("latest", engines, places.RUNS)
        own = [rollout.answer for (rollout,) in asyncio.run(candidate.attempt(rows))]
        probes = asyncio.run(using._probes(candidate, rows))
        said = [candidate.policy.renderer.decode(probe.tokens) for probe in probes]
    assert all(answer in text for answer, text in zip([own[0], str(known[1].target), own[2]], said, strict=True))


def test_what_a_run_was_asked_and_what_made_it_is_written_down() -> None:
    task = posttrain.init("tickets.csv")
    result = posttrain.compare(task, candidates=["nearest", "constant", "nearest"], seed=7)
    config = json.loads((Path(result.run) / "config.json").read_text())
    assert config["task_hash"] == task.hash and config["seed"] == 7
    assert config["candidates"] == ["nearest", "constant", "nearest"]
    assert config["resolved_candidates"] == ["nearest", "constant"]
    assert config["commit"] == places.commit() and config["versions"]["posttrain"]


def test_in_what_a_model_was_computed_is_written_down(tiny_model_folder: Path) -> None:
    model, precision = str(tiny_model_folder), choose_precision(torch.device("cpu"))
    lesson = posttrain.teach("few_shot", "tickets.csv", model=model)
    posttrain.evaluate(model, "tickets.csv")
    compared = posttrain.compare("tickets.csv", candidates=["constant", "base"], models=[model])
    configs = [json.loads((run / "config.json").read_text()) for run in places.all_runs()]
    assert [config["precision"] for config in configs] == [{model: precision}] * 3
    assert lesson.folder == places.all_runs()[0] and compared.precision == {model: precision}
    assert json.loads((Path(compared.run) / "report.json").read_text())["precision"] == {model: precision}
    assert posttrain.compare("tickets.csv", candidates=["constant"]).precision == {}
    export = TorchEngine.open(model, precision="float32")
    assert export.base().precision == "float32"
    export.close()


def test_going_on_takes_the_answers_that_were_compared() -> None:
    rows = [{"input": row.text, "answer": row.target} for row in posttrain.init("tickets.csv").splits["test"]]
    Path("ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("copy.jsonl").write_text(Path("ours.jsonl").read_text())
    Path("theirs.jsonl").write_text("".join(json.dumps({**row, "answer": "billing"}) + "\n" for row in rows))
    run = posttrain.compare("tickets.csv", candidates=["constant"], answers={"ours": "ours.jsonl"}).run
    assert posttrain.compare(resume=run).yours == "ours"
    assert posttrain.compare(resume=run, answers={"ours": "copy.jsonl"}).candidate("ours").score == 1
    for answers in ({"ours": "theirs.jsonl"}, {"ours": "ours.jsonl", "theirs": "theirs.jsonl"}):
        with pytest.raises(UserError, match=r"started with other answers \(ours=ours.jsonl\)") as caught:
            posttrain.compare(resume=run, answers=answers)
        assert caught.value.place == "--answers"
    shutil.copy("theirs.jsonl", "ours.jsonl")
    with pytest.raises(UserError, match="other answers"):
        posttrain.compare(resume=run)
    alone = posttrain.compare("tickets.csv", candidates=["constant"]).run
    with pytest.raises(UserError, match=r"other answers \(none\)"):
        posttrain.compare(resume=alone, answers={"ours": "ours.jsonl"})


def test_going_on_takes_the_run_as_it_was_started() -> None:
    first = posttrain.compare("tickets.csv", candidates=["constant", "nearest"], seed=5)
    again = posttrain.compare(resume="latest")
    assert (again.run, again.seed) == (first.run, 5)
    with pytest.raises(UserError, match="was started with seed 5"):
        posttrain.compare(resume="latest", seed=0)
    with pytest.raises(UserError, match="do not go together"):
        posttrain.compare(resume="latest", like="latest", models=["smollm2"])
    with pytest.raises(UserError, match="was started with the model smollm2"):
        posttrain.compare(resume="latest", models=["other"])
    with Path("tickets.csv").open("a") as file:
        file.write("one more,billing\n")
    posttrain.init("tickets.csv", output="other")
    with pytest.raises(UserError, match="the task has changed"):
        posttrain.compare("other", resume="latest")
    posttrain.evaluate("latest", "tasks/tickets")
    with pytest.raises(UserError, match="a run of evaluate, not of compare"):
        posttrain.compare(resume=places.all_runs()[-1])
