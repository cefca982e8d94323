"""Guessing what comes next: no answer changes, and there are fewer steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch_models import EXACT, make, open_engine

from posttrain.engines.torch import drafts
from posttrain.engines.torch.drafts import Drafter, Rates, successors
from posttrain.engines.torch.engine import TorchEngine
from posttrain.types import Completion, Output, Sampling

LABELS = ("billing", "bill", "order", "order status")


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def sample(engine: TorchEngine, sampling: Sampling, n: int = 1) -> list[Completion]:
    prompts = [tuple(3 + (i * k + k * k) % 90 for k in range(10 + i)) for i in range(5)]
    groups = asyncio.run(engine.base().sample(prompts, n=n, sampling=sampling))
    return [completion for group in groups for completion in group]


def same(one: Sequence[Completion], other: Sequence[Completion]) -> bool:
    return all(
        a.tokens == b.tokens and a.stop_reason == b.stop_reason and a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        for a, b in zip(one, other, strict=True))


def of_known(answers: Sequence[Completion], seed: int) -> Callable[..., list[int]]:
    """Drafts what one of the answers says next, with mistakes, of any length: as mean as a drafter can be."""
    source = random.Random(seed)

    def draft(_: Drafter, prompt: Any, written: Sequence[int], copyable: Any, most: int, free: int) -> list[int]:  # noqa: ARG001
        known = [answer.tokens for answer in answers
                 if answer.prompt == prompt and answer.tokens[:len(written)] == tuple(written)]
        rest = list(source.choice(known)[len(written):])[:source.randint(0, max(0, most))]
        return [token if source.random() < 0.8 else source.randrange(3, 90) for token in rest]

    return draft


@pytest.mark.parametrize("output", [None, Output(labels=LABELS)], ids=["free", "labels"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_a_guess_changes_no_answer(
        engine: TorchEngine, temperature: float, output: Output | None, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(24, temperature=temperature, seed=3, output=output)
    with monkeypatch.context() as patch:
        patch.setattr(drafts, "LONGEST_DRAFT", 0)  # nothing is
        wanted = sample(engine, sampling, n=6)
    for seed in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(Drafter, "draft", of_known(wanted, seed))
            assert same(sample(engine, sampling, n=6), wanted)
    for _ in range(2):  # guessed as it is from then on, of what was written before
        assert same(sample(engine, sampling, n=6), wanted)


@pytest.mark.parametrize("stop", [(), ("e", " is")])
def test_nothing_is_written_beyond_an_end(
        engine: TorchEngine, stop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop strings and limits that fall into the midst of what was guessed."""
    for tokens in (1, 2, 9):
        sampling = Sampling(tokens, temperature=1.0, seed=1, stop=stop)
        with monkeypatch.context() as patch:
            patch.setattr(drafts, "LONGEST_DRAFT", 0)
            longer, wanted = sample(engine, Sampling(12, temperature=1.0, seed=1)), sample(engine, sampling)
            patch.undo()
            patch.setattr(Drafter, "draft", of_known(longer, 0))
            assert same(sample(engine, sampling), wanted)
        assert all(len(completion.tokens) <= tokens for completion in wanted)


@pytest.mark.parametrize("family", EXACT)
def test_every_family_of_models_verifies_drafts(
        family: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliding windows, too, and prompts and answers longer than they are."""
    engine = open_engine(make(family), tiny_tokenizer)
    sampling = Sampling(40, temperature=1.0, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(drafts, "LONGEST_DRAFT", 0)
        wanted = sample(engine, sampling, n=3)
        patch.undo()
        patch.setattr(Drafter, "draft", of_known(wanted, 1))
        assert same(sample(engine, sampling, n=3), wanted)
    engine.close()


def test_what_was_answered_before_takes_few_steps(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, feed, prefill, steps = engine.base().fork("habits"), engine.network.feed, engine.network.prefill, []
    read_with_prompt: list[int] = []

    def counted(tokens: Any, *rest: Any) -> Any:
        steps.append(len(tokens))
        return feed(tokens, *rest)

    def noted(prompts: Any, adapter: str, trunk: Any, ends: list[int], *room: Any) -> Any:
        read_with_prompt.append(ends[0])
        return prefill(prompts, adapter, trunk, ends, *room)

    monkeypatch.setattr(engine.network, "feed", counted)
    monkeypatch.setattr(engine.network, "prefill", noted)
    prompt, sampling = tuple(range(3, 30)), Sampling(40)
    counts, answers = [], []
    for _ in range(20):
        steps.clear()
        answers.append(asyncio.run(policy.sample([prompt], sampling=sampling))[0][0].tokens)
        counts.append(len(steps))
    assert len(set(answers)) == 1
    assert counts[0] > 15 and counts[-1] < 5, "once it is known, sixteen tokens are guessed in a step"
    assert sum(steps) < 2 * len(answers[0])
    assert read_with_prompt[0] == 1 and read_with_prompt[-1] > 4, "what is said first is read with the prompt"
    policy.drop()
    assert policy.adapter not in engine.sampler.drafters


def test_what_follows_in_the_prompt_is_copied() -> None:
    found = successors((5, 8, 6, 3, 5, 9, 6, 3))
    assert found[(5,)] == 8 and found[(6, 3)] == 5, "where it first stands"
    assert found[(3, 5)] == 9 and found[(6, 3, 5)] == 9 and (6, 3, 5, 9) not in found
    assert (9, 6, 3) not in found, "nothing follows the last ones"
    drafter, prompt = Drafter(), (5, 8, 6, 3, 1, 2)
    assert drafter.draft(prompt, (5,), successors(prompt), 9) == [], "not before it was right"
    assert drafter.draft(prompt, (5,), successors(prompt), 9, free=3) == [8, 6, 3], "but where it costs nothing"
    for written in ((5,), (5, 8), (5, 8, 6), (5, 8, 6, 3)) * 20:
        drafter.learn((0,), written, successors(prompt), prompt[len(written)])
    drafter.habits.clear()
    assert drafter.draft(prompt, (5,), successors(prompt), 9) == [8, 6, 3, 1, 2][:5]
    assert drafter.draft(prompt, (5,), successors(prompt), 2) == [8, 6]
    assert drafter.draft(prompt, (7,), successors(prompt), 9) == []
    assert drafter.draft(prompt, (5,), successors(prompt), -1) == []


def test_a_guesser_is_heard_where_it_is_right() -> None:
    drafter, prompt = Drafter(), (1, 2, 3)
    for i in range(60):  # a form, and then what no form can say
        drafter.learn(prompt, (), {}, 7)
        drafter.learn(prompt, (7,), {}, 8)
        drafter.learn(prompt, (7, 8), {}, 20 + i)
    assert drafter.draft(prompt, (), {}, 9) == [7, 8]
    rates = Rates()
    assert rates.at(5) == 0.0
    for _ in range(100):
        rates.learn(3, True)
        rates.learn(1000, False)
    assert rates.at(3) > 0.9 > 0.1 > rates.at(2000) and 0.3 < rates.at(8) < 0.7


def test_habits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MOST_HABITS", 10)
    drafter = Drafter()
    for i in range(1000):
        drafter.learn((i,), (), {}, i)
        assert len(drafter.habits) <= 10
