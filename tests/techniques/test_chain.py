"""Techniques one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lessons import answers, base, reviews, rewarded, score

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import Budget, Run
from posttrain.techniques import _chain as chain
from posttrain.techniques import dpo, few_shot, grpo, sft
from posttrain.types import LearntNothing, LoRA, UserError

FAST = sft.Config(learning_rate=1e-2, epochs=10)


@pytest.mark.parametrize(("expression", "kind", "label"), [
    ("sft", "weights", "fine-tuned on the answers"),
    ("retrieval+sft", "weights", "documents in the prompt, then fine-tuned on the answers"),
    ("sft + best_of", "weights", "fine-tuned on the answers, then majority of several answers"),
    ("base+few_shot", "prompt", "instructions only, then examples in the prompt"), ("constant", "floor", None)])
def test_what_a_chain_is_called(expression: str, kind: str, label: str | None) -> None:
    assert chain.kind(expression) == kind
    assert label is None or chain.label(expression) == label
    task = reviews()
    parts = [chain.work(part, task) for part in expression.split("+")]
    assert chain.work(expression, task).rows_trained == sum(part.rows_trained for part in parts)


@pytest.mark.parametrize("expression", ["sfft", "retrieval+sfft", "", "sft+", "+"])
def test_an_unknown_link_is_refused(expression: str) -> None:
    with pytest.raises(UserError, match="no technique called"):
        chain.links(expression)


@pytest.mark.parametrize("expression", ["base+nearest", "linear+sft", "sft + linear", "few_shot+nearest", "constant+linear"])
def test_a_floor_is_no_link(expression: str, tmp_path: Path) -> None:
    """It would be taught nothing, or leave no model to teach: which ended in tracebacks or nonsense."""
    with pytest.raises(UserError, match="is a floor") as caught:
        chain.kind(expression)
    assert caught.value.place == expression and "by itself" in caught.value.remedy
    task = reviews()
    with pytest.raises(UserError, match="is a floor"):
        asyncio.run(chain.teach(expression, base(task), task, Run(tmp_path)))
    assert chain.kind("linear") == "floor", "alone it is one"


def test_what_came_of_one_is_taught_by_the_next(tmp_path: Path) -> None:
    task = reviews()
    taught = asyncio.run(chain.teach("retrieval+sft", base(task), task, Run(tmp_path), last=FAST))
    assert isinstance(taught, PolicyCandidate)
    assert taught.name == "retrieval+sft" and taught.kind == "weights" and taught.passages == 1
    assert score(taught, task) > 0.9
    assert (tmp_path / "sft" / "metrics.jsonl").exists() and (tmp_path / "retrieval").is_dir()
    assert "mean positive" in taught.messages(task.rows("test")[0])[-1].content or (
        "mean negative" in taught.messages(task.rows("test")[0])[-1].content)


def test_what_was_trained_outlives_a_later_technique_that_learns_nothing(tmp_path: Path) -> None:
    """An hour of sft was thrown away because grpo found nothing to gain after it."""
    task = reviews()
    before = asyncio.run(chain.teach("retrieval+sft", base(task), task, Run(tmp_path / "before")))
    with pytest.raises(chain.NothingFurther, match="grpo learnt nothing") as caught:
        still = grpo.Config(steps=2, learning_rate=0.0)
        asyncio.run(chain.teach("retrieval+sft+grpo", base(task), task, Run(tmp_path / "after"), last=still))
    kept = caught.value.kept
    assert isinstance(kept, PolicyCandidate) and (kept.name, kept.kind) == ("retrieval+sft", "weights")
    assert answers(kept, task.rows("test")) == answers(before, task.rows("test")) and caught.value.remedy
    assert score(kept, task) > score(base(task), task)
    with pytest.raises(LearntNothing) as alone:
        nothing = Run(tmp_path / "alone", budget=Budget(steps=0))
        asyncio.run(chain.teach("retrieval+grpo", base(task), task, nothing))
    assert not isinstance(alone.value, chain.NothingFurther), "a prompt alone is not what was asked for"


def test_a_prompt_after_training_keeps_the_weights(tmp_path: Path) -> None:
    task = reviews()
    tuned = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "sft"), last=FAST))
    voting = asyncio.run(chain.teach("best_of", tuned, task, Run(tmp_path / "votes")))
    assert isinstance(voting, PolicyCandidate) and voting.votes == 5
    assert voting.kind == "weights" and score(voting, task) > 0.8


@pytest.mark.parametrize("expression", ["retrieval", "knn_few_shot", "best_of", "retrieval+knn_few_shot", "retrieval+sft"])
def test_how_it_will_ask_is_known_beforehand(expression: str, tmp_path: Path) -> None:
    """What the estimate counts tokens of is what the taught candidate asks."""
    task = reviews()
    start = base(task)
    shaped = chain.shape(expression, start, task)
    taught = asyncio.run(chain.teach(expression, start, task, Run(tmp_path)))
    assert isinstance(taught, PolicyCandidate) and taught.votes == shaped.votes
    for row in task.rows("test")[:8]:
        assert shaped.messages(row) == taught.messages(row)
    assert shaped.messages(row) != start.messages(row) or shaped.votes > 1


@pytest.mark.parametrize("expression", ["sft+dpo", "sft+best_of+dpo", "retrieval+sft+best_of"])
def test_the_trained_tokens_of_all_links_are_counted(expression: str, tmp_path: Path) -> None:
    task = reviews()
    learnt = asyncio.run(chain.teach(expression, base(task), task, Run(tmp_path)))
    logs = {name: Run(tmp_path / name).metrics() for name in chain.folders(expression)}
    each = {name: sum(record.get("trained_tokens", 0) for record in records) for name, records in logs.items()}
    assert each["sft"] > 0 and each.get("dpo") != 0
    assert isinstance(learnt, PolicyCandidate) and learnt.details["training"]["trained_tokens"] == sum(each.values())


def test_slow_links_share_the_time(tmp_path: Path) -> None:
    task, budgets = reviews(), {}
    run = Run(tmp_path, budget=Budget(minutes=2))

    class Watching(Run):
        def child(self, name: str, **given: object) -> Run:
            inner = run.child(name, **given)  # type: ignore[arg-type]
            budgets[name] = inner.budget.minutes
            return inner

    watching = Watching(tmp_path, budget=Budget(minutes=2))
    asyncio.run(chain.teach("base+few_shot+sft", base(task), task, watching, last=FAST))
    assert budgets["base"] == pytest.approx(2, abs=0.1)
    assert budgets["few_shot"] == pytest.approx(1, abs=0.1), "half of what there is"
    assert budgets["sft"] > 1.8, "and what it left goes to the next"


def test_what_goes_on_does_not_add_to_old_logs(tmp_path: Path) -> None:
    task = rewarded(lambda answer: float(answer[:1].isalpha()))
    config = grpo.Config(steps=12, rows_per_step=8, learning_rate=3e-2, evaluate_every=4, rollouts_every=4,
                         fooled="warn")
    logs = []
    for _ in range(2):  # the second start finds what a killed one left behind
        asyncio.run(chain.teach("base+grpo", base(task), task, Run(tmp_path), last=config))
        steps = [record["step"] for record in Run(tmp_path / "grpo").metrics() if "reward" in record]
        assert steps == list(range(12))
        rollouts = tmp_path / "grpo" / "rollouts"
        logs.append([path.read_bytes() for path in sorted(rollouts.iterdir())])
        (rollouts / "step-00099.jsonl").write_text("{}\n")  # as if it had gone further
    assert logs[0] == logs[1] and len(logs[0]) == 3


def test_a_technique_that_comes_twice_has_two_folders(tmp_path: Path) -> None:
    task = reviews()
    config = few_shot.Config(counts=(2,), draws=1)
    asyncio.run(chain.teach("few_shot+few_shot", base(task), task, Run(tmp_path), last=config))
    assert [len(Run(tmp_path / name).metrics()) for name in ("few_shot", "few_shot-2")] == [4, 1]


def test_another_shape_for_an_adapter_that_goes_on_is_refused(tmp_path: Path) -> None:
    task = reviews()
    with pytest.raises(UserError, match="has its shape already") as caught:
        config = grpo.Config(lora=LoRA(rank=4))
        asyncio.run(chain.teach("sft+grpo", base(task), task, Run(tmp_path / "early"), last=config))
    assert caught.value.place == "grpo: lora" and "leave `lora` out" in caught.value.remedy
    assert not (tmp_path / "early" / "sft").exists(), "before anything is trained"
    tuned = asyncio.run(chain.teach("sft", base(task), task, Run(tmp_path / "sft"), last=FAST))
    assert isinstance(tuned, PolicyCandidate)
    for module in (dpo, grpo):
        with pytest.raises(UserError, match="has its shape already"):
            asyncio.run(module.teach(tuned, task, Run(tmp_path / "later"), module.Config(lora=LoRA(rank=4))))
    with pytest.raises(UserError, match="has its shape already"):
        other = sft.Config(lora=LoRA(rank=4))
        asyncio.run(chain.teach("sft", tuned, task, Run(tmp_path / "again"), last=other))
    on = dpo.Config(learning_rate=1e-2, epochs=3)
    asyncio.run(chain.teach("dpo", tuned, task, Run(tmp_path / "on"), last=on))
