"""Fine-tuning through the unmodified client: what goes well, and what is refused, in its own words and exceptions."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import openai
import pytest
from service import Service, lines

COLOURS = ("red", "blue")


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Things, every other one blue: which, the tiny model cannot tell."""
    return [
        {"messages": [{"role": "user", "content": f"thing {i}"},
                      {"role": "assistant", "content": COLOURS[i % 2]}], **more}
        for i in range(count)
    ]


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


@pytest.fixture(scope="module")
def taught(tiny_service: Service) -> openai.types.fine_tuning.FineTuningJob:
    """A job that succeeded."""
    method = supervised(n_epochs=6, batch_size=4, learning_rate_multiplier=4.0)
    job = tiny_service.job(rows(48), validation=rows(6), suffix="hues", seed=5, metadata={"of": "colours"}, method=method)
    assert job.status == "validating_files" and job.estimated_finish is None
    found = tiny_service.ended(job.id)
    assert found.status == "succeeded", (found.error, tiny_service.log())
    return found


def test_a_model_is_taught_and_asked(tiny_service: Service, taught: Any) -> None:
    assert taught.fine_tuned_model == f"ft:{tiny_service.model.rpartition('/')[2]}:local:hues:{taught.id[-8:]}"
    assert taught.trained_tokens > 0 and taught.finished_at >= taught.created_at and taught.error is None
    assert taught.seed == 5 and taught.metadata == {"of": "colours"} and taught.user_provided_suffix == "hues"
    assert taught.method.supervised.hyperparameters.batch_size == 4 == taught.hyperparameters.batch_size
    assert tiny_service.answer(tiny_service.model, "thing 7") not in COLOURS
    assert {tiny_service.answer(taught.fine_tuned_model, f"thing {i}") for i in range(6)} <= {*COLOURS}
    assert taught.fine_tuned_model in [model.id for model in tiny_service.client.models.list()]
    assert tiny_service.client.models.retrieve(taught.fine_tuned_model).owned_by == "local"


def test_it_says_what_it_does_while_it_does(tiny_service: Service, taught: Any) -> None:
    said = tiny_service.events(taught.id)
    assert said[:4] == [f"Created fine-tuning job: {taught.id}", f"Validating training file: {taught.training_file}",
                        "Files validated, moving job to queued state", "Fine-tuning job started"]
    assert said[-1] == "The job has successfully completed"
    assert said[-2] == f"New fine-tuned model created: {taught.fine_tuned_model}"
    steps = [event.data for event in tiny_service.client.fine_tuning.jobs.list_events(taught.id, limit=100)
             if event.type == "metrics" and "train_loss" in event.data]  # type: ignore[operator]
    assert [step["step"] for step in steps] == [*range(72, 0, -1)]  # type: ignore[index]
    [file] = taught.result_files
    table = list(csv.DictReader(io.StringIO(tiny_service.client.files.content(file).text)))
    assert [line["step"] for line in table] == [str(step) for step in range(73)]
    assert float(table[72]["train_loss"]) < float(table[1]["train_loss"]) and table[72]["valid_loss"]


def test_a_checkpoint_is_a_model_too(tiny_service: Service, taught: Any) -> None:
    found = list(tiny_service.client.fine_tuning.jobs.checkpoints.list(taught.id, limit=2))
    assert [checkpoint.step_number for checkpoint in found] == [72, 60, 50, 48, 36, 24, 12]
    first = found[-1]
    assert first.fine_tuned_model_checkpoint == f"{taught.fine_tuned_model}:ckpt-step-12"
    assert first.metrics.step == 12 and first.metrics.train_loss and first.fine_tuning_job_id == taught.id
    said = {tiny_service.answer(each.fine_tuned_model_checkpoint, "thing 5", temperature=1, seed=1) for each in found}
    assert len(said) > 1 and f"Checkpoint created at step {first.step_number}" in tiny_service.events(taught.id)


def test_lists_come_in_pages(tiny_service: Service, taught: Any) -> None:
    client = tiny_service.client
    whole = [event.id for event in client.fine_tuning.jobs.list_events(taught.id, limit=100)]
    assert [event.id for event in client.fine_tuning.jobs.list_events(taught.id, limit=7)] == whole and len(whole) > 50
    jobs = [job.id for job in client.fine_tuning.jobs.list(limit=1)]
    assert taught.id in jobs and len(set(jobs)) == len(jobs)
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"of": "colours"})] == [taught.id]
    assert taught.id not in [job.id for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})]
    files = [file.id for file in client.files.list(limit=1, order="asc")]
    assert taught.training_file in files and len(set(files)) == len(files)
    assert [file.id for file in client.files.list(purpose="fine-tune-results")] == taught.result_files


def test_the_asynchronous_client_sees_the_same(tiny_service: Service, taught: Any) -> None:
    async def look() -> tuple[Any, list[str]]:
        async with openai.AsyncOpenAI(base_url=tiny_service.url, api_key="none") as client:
            job = await client.fine_tuning.jobs.retrieve(taught.id)
            return job, [event.id async for event in client.fine_tuning.jobs.list_events(taught.id, limit=9)]

    job, events = asyncio.run(look())
    assert job == taught and len(events) == len(tiny_service.events(taught.id))


def test_reinforcement_goes_on_from_what_was_taught(tiny_service: Service, taught: Any) -> None:
    """The taught model has learnt to say one as often as the other; the grader wants the one that it does not say."""
    said = tiny_service.answer(taught.fine_tuned_model, "thing 3")
    wanted = COLOURS[1 - COLOURS.index(said)]
    asked = [{"messages": row["messages"][:1], "wanted": wanted} for row in rows(24)]
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.wanted}}"}
    grader = {"type": "multi", "name": "both", "calculate_output": "0.5 * held + 0.5 * exact", "graders": {
        "held": {"type": "string_check", "name": "held", "operation": "like", **texts},
        "exact": {"type": "string_check", "name": "exact", "operation": "eq", **texts}}}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {
        "n_epochs": 6, "batch_size": 8, "eval_interval": 6, "eval_samples": 6, "max_tokens": 12, "learning_rate_multiplier": 6.0}}}
    job = tiny_service.ended(tiny_service.job(asked, validation=asked[:6], model=taught.fine_tuned_model, seed=1, method=method).id)
    assert job.status == "succeeded", "\n".join([*tiny_service.events(job.id), tiny_service.log()])
    assert job.method.reinforcement.grader.type == "multi" and job.hyperparameters is None  # type: ignore[union-attr]
    answers = [tiny_service.answer(job.fine_tuned_model or "", f"thing {i}") for i in range(9)]
    assert all(answer.startswith(wanted) for answer in answers), answers


def test_preferences_are_learnt(tiny_service: Service) -> None:
    pairs = [{"input": {"messages": [{"role": "user", "content": f"thing {i}"}]},
              "preferred_output": [{"role": "assistant", "content": "blue"}],
              "non_preferred_output": [{"role": "assistant", "content": "red"}]} for i in range(16)]
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.2, "learning_rate_multiplier": 10.0}}}
    job = tiny_service.ended(tiny_service.job(pairs, method=method).id)
    assert job.status == "succeeded", (job.error, tiny_service.log())
    assert job.method.dpo.hyperparameters.beta == 0.2  # type: ignore[union-attr]


def graded(source: str) -> dict[str, Any]:
    return {"type": "reinforcement", "reinforcement": {
        "grader": {"type": "python", "name": "own", "source": source},
        "hyperparameters": {"n_epochs": 1, "batch_size": 4, "max_tokens": 6, "compute_multiplier": 0.25}}}


NUMBERED = [{"messages": row["messages"][:1], "number": i} for i, row in enumerate(rows(12))]


def test_a_function_alone_says_what_is_good(tiny_service: Service, taught: Any) -> None:
    """Rows that say nothing of what is wanted, and a function of the user's own, which raises now and then."""
    source = ("def grade(sample, item):\n    assert item['number'] != 3\n"
              "    return sample['output_text'].strip() == ('red', 'blue')[item['number'] % 2]")
    job = tiny_service.ended(tiny_service.job(NUMBERED, model=taught.fine_tuned_model, seed=1, method=graded(source)).id)
    said = tiny_service.events(job.id)
    assert [line for line in said if line.startswith("Step 3/3: ")], "\n".join(said)
    assert job.status == "succeeded" or job.error.code == "learnt_nothing", said  # type: ignore[union-attr]


def test_a_grader_that_pays_for_anything_is_found_before_anything_is_taught(tiny_service: Service) -> None:
    source = "def grade(sample, item):\n    return min(1, len(sample['output_text']) / 8)"
    job = tiny_service.ended(tiny_service.job(NUMBERED, method=graded(source)).id)
    assert job.status == "failed" and "fooled" in job.error.message.casefold()  # type: ignore[union-attr]
    assert not [line for line in tiny_service.events(job.id) if line.startswith("Step 1")]


BAD_LINES = [
    (b'{"messages": [{"role": "user"', "line 3"),
    (b'[1, 2]', "line 3"),
    (b'{"messages": [{"role": "pope", "content": "x"}, {"role": "assistant", "content": "y"}]}', "'pope'"),
    (b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 7}]}', "weight 7"),
]


@pytest.mark.parametrize("line, said", BAD_LINES, ids=[said for _, said in BAD_LINES])
def test_a_bad_line_is_named_on_upload_and_fails_the_job(tiny_service: Service, line: bytes, said: str) -> None:
    good = lines(rows(12)).splitlines()
    content = b"\n".join([*good[:2], line, *good[2:]])
    file = tiny_service.client.files.create(file=("r.jsonl", content), purpose="fine-tune")
    assert file.status == "error" and "line 3" in str(file.status_details)
    job = tiny_service.client.fine_tuning.jobs.create(model=tiny_service.model, training_file=file.id)
    failed = tiny_service.ended(job.id)
    assert failed.status == "failed" and failed.error is not None
    assert failed.error.param == "training_file" and failed.error.code == "invalid_training_file"
    assert said in failed.error.message and "line 3" in failed.error.message and "/" not in failed.error.message


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": "gpt-9"}, "model"),
    ({"training_file": "file-none"}, "training_file"),
    ({"method": supervised(n_epochs=51)}, "n_epochs"),
    ({"method": supervised(n_epoch=3)}, "n_epoch"),
    ({"method": supervised(batch_size=0)}, "batch_size"),
    ({"method": supervised(learning_rate_multiplier=-1)}, "learning_rate_multiplier"),
    ({"method": {"type": "telepathy"}}, "type"),
    ({"method": {"type": "reinforcement"}}, "grader"),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "string_check", "name": "g"}}}}, "input"),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {
        "type": "python", "name": "g", "source": "def grade(:"}}}}, "source"),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {
        "type": "string_check", "name": "g", "operation": "eq", "input": "{{sample.output_text}}",
        "reference": "{{env.SECRET}}"}}}}, "reference"),
    ({"suffix": "../../etc"}, "suffix"),
    ({"seed": -1}, "seed"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
    ({"extra_body": {"colour": "red"}}, "colour"),
]


@pytest.mark.parametrize("asked, param", REFUSED, ids=[param for _, param in REFUSED])
def test_what_would_have_to_be_ignored_is_refused_by_name(
        tiny_service: Service, taught: Any, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        tiny_service.client.fine_tuning.jobs.create(
            **{"model": tiny_service.model, "training_file": taught.training_file, **asked})
    assert param in str(refused.value.param) or param in refused.value.message


def test_what_is_not_there_is_not_found(tiny_service: Service, taught: Any) -> None:
    client = tiny_service.client
    jobs = client.fine_tuning.jobs
    for call in (lambda: jobs.retrieve("ftjob-none"), lambda: jobs.cancel("ftjob-none"),
                 lambda: jobs.list_events("ftjob-none"), lambda: jobs.checkpoints.list("ftjob-none"),
                 lambda: jobs.list(after="ftjob-none"), lambda: client.files.retrieve("file-none"),
                 lambda: client.files.content("file-none"), lambda: client.files.delete("../../etc/passwd"),
                 lambda: client.models.retrieve("ft:none"), lambda: client.models.delete("ft:none"),
                 lambda: tiny_service.answer("ft:none", "?")):
        with pytest.raises(openai.NotFoundError):
            call()
    for turn in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="succeeded"):
            turn(taught.id)
    with pytest.raises(openai.BadRequestError, match="cannot be deleted"):
        client.models.delete(tiny_service.model)


def test_files_are_kept_byte_for_byte_and_deleted(tiny_service: Service) -> None:
    client = tiny_service.client
    content = bytes(range(256)) * 20_000
    file = client.files.create(file=("../../a b.bin", content), purpose="user_data",
                               expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.filename == "a b.bin" and file.bytes == len(content) and file.expires_at == file.created_at + 3600
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.content(file.id).content == content
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    for asked, param in (({"purpose": "vision"}, "purpose"), ({"expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after")):
        with pytest.raises(openai.BadRequestError) as refused:
            client.files.create(**{"file": ("x", b"x"), "purpose": "evals", **asked})
        assert refused.value.param == param


def test_a_model_is_deleted(tiny_service: Service, taught: Any) -> None:
    """Last of the file: nothing can be asked of it any more."""
    assert tiny_service.client.models.delete(taught.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        tiny_service.answer(taught.fine_tuned_model, "?")
