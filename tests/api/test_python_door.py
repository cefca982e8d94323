"""The verbs from Python: all of those of the command line, in a program and in a notebook."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import posttrain
from posttrain import api
from posttrain.cli.main import app
from posttrain.types import UserError

FLOORS = ["constant", "nearest"]


def test_every_command_is_a_verb() -> None:
    commands = {command.name for command in app.registered_commands if not command.hidden}
    assert commands == set(posttrain.VERBS)
    assert all(callable(getattr(posttrain, verb)) for verb in commands)
    assert commands <= set(dir(posttrain))


def everything() -> dict[str, Any]:
    """The way from a file to answers, with floors."""
    task = posttrain.init("tickets.csv")
    findings = posttrain.check(task)
    result = posttrain.compare(task, candidates=FLOORS)
    shown = posttrain.show("latest")
    predictions = posttrain.predict("latest", ["where is the parcel"])
    (reply,) = posttrain.chat("latest/nearest", "where is the parcel")
    evaluation = posttrain.evaluate("latest/nearest", task)
    cleaned = posttrain.clean(keep=0)
    return {
        "findings": [finding for finding in findings if finding.level == "error"],
        "candidates": [each.name for each in result.candidates],
        "shown": shown.recommendation == result.recommendation,
        "answers": [predictions[0].answer, reply.answer],
        "rows judged": evaluation.n == len(task.rows("dev")),
        "removed": len(cleaned.old),
        "left": list(Path("runs").glob("*/")),
    }


WANTED = {"findings": [], "candidates": FLOORS, "shown": True, "answers": ["shipping", "shipping"],
          "rows judged": True, "removed": 2, "left": []}


def test_the_verbs_work_in_a_program() -> None:
    assert everything() == WANTED


def test_the_verbs_work_inside_a_running_event_loop() -> None:
    async def notebook() -> dict[str, Any]:
        return everything()

    assert asyncio.run(notebook()) == WANTED


def test_errors_come_through_from_the_other_loop() -> None:
    async def notebook() -> None:
        with pytest.raises(UserError, match="no run called 'latest'"):
            posttrain.predict("latest", ["where is the parcel"])
        with pytest.raises(UserError, match="the grader is broken"):
            posttrain.compare(broken, candidates=["constant"])

    broken = posttrain.init("tickets.csv", grader="exact")
    toml = Path("tasks/tickets/task.toml")
    toml.write_text(toml.read_text().replace('name = "exact"', 'name = "python"'))
    Path("tasks/tickets/grade.py").write_text("def grade(row, answer):\n    raise ValueError('the grader is broken')\n")
    broken = api.sources.load_task("tasks/tickets")
    asyncio.run(notebook())


def test_evaluate_looks_at_dev_unless_told_and_looks_at_test_are_counted() -> None:
    task = posttrain.init("tickets.csv")
    posttrain.compare(task, candidates=FLOORS)
    evaluation = posttrain.evaluate("latest/nearest", task)
    assert evaluation.n == len(task.rows("dev"))
    assert api.teaching.judge("latest/nearest", task).test_uses is None
    assert api.teaching.judge("latest/nearest", task, split="test").test_uses == 2  # the comparison was the first
    assert posttrain.compare(task, candidates=FLOORS).test_uses == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": "abc"}, "epochs of sft is 'abc', which is no int"),
        ({"epochs": 2.5}, "epochs of sft is 2.5, which is no int"),
        ({"learning_rate": "fast"}, "learning_rate of sft is 'fast', which is no float"),
        ({"learning_rate": "nan"}, "learning_rate of sft is 'nan', which is no float"),
        ({"brief": "perhaps"}, "brief of sft is 'perhaps', which is no bool"),
        ({"lora": 3}, "lora of sft is 3, which is no LoRA"),
        ({"lr": 3}, "sft has no setting 'lr'"),
    ],
    ids=str,
)
def test_a_setting_of_the_wrong_type_is_refused_before_anything_is_done(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        posttrain.teach("sft", "tickets.csv", settings=settings)
    assert refusal.value.place == "--set"
    assert not Path("runs").exists() and not Path("tasks").exists()


def test_settings_come_as_texts_or_as_values() -> None:
    config = api.teaching._config("sft", {"epochs": "3", "learning_rate": 1, "lora": {"rank": 8}, "brief": "false"})
    assert (config.epochs, config.learning_rate, config.lora.rank, config.brief) == (3, 1.0, 8, False)
    assert isinstance(config.learning_rate, float)
