"""What every engine that trains must keep to, whatever it computes with.

An engine joins in by a branch in `base`: a base policy with nothing trained, cheap enough for dozens of steps.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.toy import ToyPolicy
from posttrain.optimisers import Adam, Muon, Optimiser
from posttrain.rollouts import among
from posttrain.types import Datum, LoRA, Message, Metrics, Output, Policy, Sampling, UserError

QUESTIONS = ["where is my order", "I was charged twice", "the printer is down", "good day", "is it good or bad"]
ANSWERS = ["one two three", "yes", "no", "four five", "bad"]
LABELS = ("billing", "shipping order", "shipping", "account")
SHAPE = LoRA(rank=8, alpha=16)


@pytest.fixture(scope="module", params=["toy", "torch"])
def base(request: pytest.FixtureRequest) -> Iterator[Policy]:
    if request.param == "toy":
        yield ToyPolicy.open([*QUESTIONS, *ANSWERS])
        return
    engine = TorchEngine.open(str(request.getfixturevalue("tiny_model_folder")), device="cpu", precision="float32")
    yield engine.base()
    engine.close()


def cross_entropy(logprobs: Sequence[Tensor], data: Sequence[Datum]) -> tuple[Tensor, Metrics]:
    weighted = [-(logprob * torch.tensor([datum.weights[i] for i in datum.trained])).sum()
                for logprob, datum in zip(logprobs, data, strict=True)]
    return torch.stack(weighted).sum(), {"rows": float(len(data))}


def data(policy: Policy, answers: Sequence[str] = ANSWERS) -> list[Datum]:
    return [policy.renderer.datum([Message("user", question), Message("assistant", answer)])
            for question, answer in zip(QUESTIONS, answers, strict=True)]


def prompts(policy: Policy) -> list[Any]:
    return [policy.renderer.prompt([Message("user", question)]) for question in QUESTIONS]


def scores(policy: Policy) -> list[float]:
    return [value for row in asyncio.run(policy.logprobs(data(policy))) for value in row]


async def train(policy: Policy, steps: int, optimiser: Optimiser = Adam(1e-2), answers: Sequence[str] = ANSWERS,
                most_rows: int = 5) -> list[Metrics]:
    rows = data(policy, answers)[:most_rows]
    trained = sum(len(datum.trained) for datum in rows)
    history = []
    for _ in range(steps):
        metrics = await policy.forward_backward(rows, cross_entropy, normaliser=trained)
        history.append(metrics | await policy.optim_step(optimiser))
    return history


def test_the_base_is_not_trained_and_a_fork_is(base: Policy) -> None:
    assert not base.trainable
    with pytest.raises(UserError):
        asyncio.run(base.forward_backward(data(base), cross_entropy))
    assert base.fork("fresh", SHAPE).trainable


def test_a_fresh_fork_answers_as_its_base(base: Policy) -> None:
    assert scores(base.fork("same", SHAPE, seed=3)) == pytest.approx(scores(base), abs=1e-5)


def test_sampled_logprobs_are_those_of_scoring(base: Policy) -> None:
    policy = base.fork("sampled", SHAPE)
    asyncio.run(train(policy, 3))
    for group in asyncio.run(policy.sample(prompts(policy), n=2, sampling=Sampling(12, temperature=1.0, seed=5))):
        for completion in group:
            assert completion.tokens and len(completion.tokens) == len(completion.logprobs)
            before = len(completion.prompt)
            datum = Datum((*completion.prompt, *completion.tokens), (0.0,) * before + (1.0,) * len(completion.tokens))
            assert list(completion.logprobs) == pytest.approx(asyncio.run(policy.logprobs([datum]))[0], abs=2e-4)


def test_the_likeliest_tokens_are_told_where_it_is_asked(base: Policy) -> None:
    prompt = prompts(base)[0]
    for output in (None, Output(labels=("billing", "bill", "order status"))):
        asked = Sampling(8, temperature=1.0, seed=5, top_logprobs=3, output=output)
        told = asyncio.run(base.sample([prompt], sampling=asked))[0][0]
        silent = asyncio.run(base.sample([prompt], sampling=replace(asked, top_logprobs=0)))[0][0]
        assert told.tokens == silent.tokens and silent.top_logprobs == ()
        assert len(told.top_logprobs) == len(told.tokens) and any(told.chosen)
        places = zip(told.tokens, told.logprobs, told.chosen, told.top_logprobs, strict=True)
        for i, (token, logprob, chosen, top) in enumerate(places):
            assert len(top) == (3 if chosen else 0)
            assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
            assert dict(top).get(token, logprob) == pytest.approx(logprob, abs=1e-5)
            for other, value in top:
                before = (*told.prompt, *told.tokens[:i])
                datum = Datum((*before, other), (0.0,) * len(before) + (1.0,))
                assert asyncio.run(base.logprobs([datum]))[0] == pytest.approx([value], abs=2e-4)


def test_the_trained_tokens_are_the_ones_scored(base: Policy) -> None:
    whole = data(base)[0]
    last = replace(whole, weights=(*[0.0] * (len(whole.weights) - 1), 1.0))
    everything, only = asyncio.run(base.logprobs([whole, last]))
    assert len(everything) == len(whole.trained) > 1 and only == pytest.approx(everything[-1:], abs=1e-5)


def test_gradients_accumulate(base: Policy) -> None:
    together, apart = base.fork("together", SHAPE, seed=1), base.fork("apart", SHAPE, seed=1)
    rows = data(base)

    async def steps() -> tuple[Metrics, Metrics]:
        await together.forward_backward(rows, cross_entropy, normaliser=7)
        await apart.forward_backward(rows[:2], cross_entropy, normaliser=7)
        await apart.forward_backward(rows[2:], cross_entropy, normaliser=7)
        return await together.optim_step(Adam(1e-2)), await apart.optim_step(Adam(1e-2))

    one, two = asyncio.run(steps())
    assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-3)
    assert scores(together) == pytest.approx(scores(apart), abs=1e-3)
    assert scores(together) != pytest.approx(scores(base), abs=1e-3)


def test_the_normaliser_divides_loss_and_gradient(base: Policy) -> None:
    policy = base.fork("normalised", SHAPE)
    metrics = []
    for normaliser in (1.0, 4.0):
        loss = asyncio.run(policy.forward_backward(data(policy), cross_entropy, normaliser=normaliser))
        metrics.append(loss | asyncio.run(policy.optim_step(Adam(0.0, max_grad_norm=0))))
    assert metrics[0]["loss"] == pytest.approx(4 * metrics[1]["loss"], rel=1e-4)
    assert metrics[0]["gradient_norm"] == pytest.approx(4 * metrics[1]["gradient_norm"], rel=1e-3)


def test_a_step_uses_the_gradient_up(base: Policy) -> None:
    policy = base.fork("spent", SHAPE)
    asyncio.run(train(policy, 1))
    with pytest.raises(UserError, match="gradient"):
        asyncio.run(policy.optim_step(Adam(1e-2)))


def test_weights_scale_the_loss_and_zero_is_not_trained(base: Policy) -> None:
    policy = base.fork("weights", SHAPE)
    datum = data(policy)[0]
    doubled = replace(datum, weights=tuple(2 * weight for weight in datum.weights))
    first = asyncio.run(policy.forward_backward([datum], cross_entropy))
    second = asyncio.run(policy.forward_backward([doubled], cross_entropy))
    assert second["loss"] == pytest.approx(2 * first["loss"], rel=1e-4)
    with pytest.raises(UserError, match="nothing to train"):
        asyncio.run(policy.forward_backward([replace(datum, weights=(0.0,) * len(datum.weights))], cross_entropy))


def test_nothing_to_train_on_is_an_error(base: Policy) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        asyncio.run(base.fork("idle", SHAPE).forward_backward([], cross_entropy))


def test_a_large_gradient_is_clipped(base: Policy) -> None:
    policy = base.fork("clipped", SHAPE)
    asyncio.run(train(policy, 1))
    asyncio.run(policy.forward_backward(data(policy), cross_entropy, normaliser=1e-3))
    assert asyncio.run(policy.optim_step(Adam(1e-2, max_grad_norm=0.5)))["gradient_norm"] > 0.5


@pytest.mark.parametrize("optimiser", [Adam(1e-2), Muon(3e-2)], ids=["adam", "muon"])
def test_the_loss_falls(base: Policy, optimiser: Optimiser) -> None:
    history = asyncio.run(train(base.fork("learner", SHAPE), 30, optimiser=optimiser))
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[0]["trained_tokens"] == sum(len(datum.trained) for datum in data(base))
    assert history[0]["rows"] == len(QUESTIONS)


@pytest.mark.parametrize("optimiser", [Adam(1e-2), Muon(1e-2)], ids=["adam", "muon"])
def test_saving_and_loading_restores_exactly(base: Policy, optimiser: Optimiser, tmp_path: Path) -> None:
    policy, other = base.fork("saved", SHAPE, seed=1), base.fork("other", SHAPE, seed=2)

    async def go_on() -> None:
        await train(policy, 4, optimiser=optimiser)
        await policy.save(tmp_path / "checkpoint", optimiser=True)
        await train(policy, 3, optimiser=optimiser)
        await other.load(tmp_path / "checkpoint")
        await train(other, 3, optimiser=optimiser)

    asyncio.run(go_on())
    assert scores(other) == scores(policy), "a run resumed from a checkpoint is the run never interrupted"


def test_loading_without_the_optimiser_restores_the_weights(base: Policy, tmp_path: Path) -> None:
    policy = base.fork("best", SHAPE)
    asyncio.run(train(policy, 4))
    asyncio.run(policy.save(tmp_path))
    kept = scores(policy)
    asyncio.run(train(policy, 4))
    assert scores(policy) != kept
    asyncio.run(policy.load(tmp_path))
    assert scores(policy) == kept


def test_loading_what_is_no_checkpoint_is_a_user_error_and_changes_nothing(base: Policy, tmp_path: Path) -> None:
    policy = base.fork("unharmed", SHAPE)
    asyncio.run(train(policy, 1))
    before = scores(policy)
    with pytest.raises(UserError):
        asyncio.run(policy.load(tmp_path / "nowhere"))
    assert scores(policy) == before


def test_a_frozen_policy_stays(base: Policy) -> None:
    policy = base.fork("moving", SHAPE)
    asyncio.run(train(policy, 2))
    frozen, before = policy.frozen(), scores(policy)
    assert not frozen.trainable and scores(frozen) == before
    asyncio.run(train(policy, 3))
    assert scores(frozen) == before and scores(policy) != before


def test_forks_do_not_touch_each_other_nor_the_base(base: Policy) -> None:
    bare = scores(base)
    one, two = base.fork("fork", SHAPE, seed=1), base.fork("fork", SHAPE, seed=1)
    asyncio.run(train(one, 5))
    assert scores(two) == pytest.approx(bare, abs=1e-5) and scores(base) == bare
    asyncio.run(train(two, 5, answers=ANSWERS[::-1]))
    heir, kept = one.fork("heir", SHAPE), scores(one)
    assert scores(heir) == kept
    asyncio.run(train(heir, 3))
    assert scores(one) == kept != scores(heir)
    two.drop()
    assert scores(one) == kept and scores(base) == bare


def test_the_seed_makes_the_sample(base: Policy) -> None:
    def texts(seed: int, asked: Sequence[Any] | None = None) -> list[list[str]]:
        sampling = Sampling(12, temperature=1.0, seed=seed)
        groups = asyncio.run(base.sample(asked or prompts(base), n=3, sampling=sampling))
        return [[completion.text for completion in group] for group in groups]

    first = texts(1)
    assert texts(1) == first != texts(2)
    assert len({text for group in first for text in group}) > 5
    assert texts(1, prompts(base)[2:3]) == first[2:3], "an answer does not depend on what else is asked"


def test_temperature_zero_takes_the_likeliest(base: Policy) -> None:
    policy = base.fork("greedy", SHAPE)
    asyncio.run(train(policy, 60, most_rows=1))
    greedy = asyncio.run(policy.sample(prompts(policy)[:1], n=2, sampling=Sampling(16)))[0]
    assert [(completion.text, completion.stop_reason) for completion in greedy] == [(ANSWERS[0], "stop")] * 2
    assert greedy[0].tokens[-1] in policy.renderer.stop_tokens  # type: ignore[attr-defined]


def test_labels_are_the_only_answers(base: Policy) -> None:
    sampling = Sampling(32, temperature=1.5, output=Output(labels=LABELS))
    completions = [completion for group in asyncio.run(base.sample(prompts(base), n=8, sampling=sampling))
                   for completion in group]
    assert {completion.text for completion in completions} <= set(LABELS)
    assert len({completion.text for completion in completions}) > 1
    for completion in completions:
        assert completion.stop_reason == "stop" and 0 < (completion.confidence or 0) <= 1
        assert len(completion.chosen) == len(completion.tokens) and any(completion.chosen)
        forced = [logprob for logprob, chosen in zip(completion.logprobs, completion.chosen, strict=True) if not chosen]
        assert not any(forced)


def test_the_confidences_of_all_labels_sum_to_one(base: Policy) -> None:
    found: dict[str, float] = {}
    for seed in range(20):
        sampling = Sampling(32, temperature=1.0, seed=seed, output=Output(labels=LABELS))
        for completion in asyncio.run(base.sample(prompts(base)[:1], n=16, sampling=sampling))[0]:
            found[completion.text] = completion.confidence or 0.0
    assert set(found) == set(LABELS) and sum(found.values()) == pytest.approx(1, abs=1e-3)


def test_a_choice_among_labels_has_the_probability_of_sampling_it(base: Policy) -> None:
    policy = base.fork("choosing", SHAPE)
    asyncio.run(train(policy, 3))
    rows = data(policy, [*LABELS, LABELS[0]])[:4]
    first, prompt = rows[0], prompts(policy)[0]
    labels = [policy.renderer.datum([Message("user", QUESTIONS[0]), Message("assistant", label)]) for label in LABELS]
    answers = [label.tokens[len(prompt):] for label in labels]
    chosen = [among(label, answers) for label in labels]
    shares = [math.exp(sum(each)) for each in asyncio.run(policy.logprobs(chosen))]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and chosen[0].tokens == first.tokens
    sampled = asyncio.run(policy.sample([prompt], sampling=Sampling(24, output=Output(labels=LABELS))))[0][0]
    assert shares[LABELS.index(sampled.text)] == pytest.approx(sampled.confidence, abs=1e-4)
    mixed = asyncio.run(policy.logprobs([*chosen, *data(policy)]))
    assert [value for row in mixed for value in row] == pytest.approx(
        [value for row in asyncio.run(policy.logprobs(chosen)) for value in row] + scores(policy), abs=1e-4)


def test_choices_among_labels_are_learnt(base: Policy) -> None:
    policy, wanted = base.fork("chooser", SHAPE), "shipping"
    answers = [row.tokens[len(prompt):] for row, prompt in zip(data(policy, [*LABELS, "no"]), prompts(policy),
                                                               strict=True)][:4]
    rows = [among(row, answers) for row in data(policy, [wanted] * 5)]

    async def learn() -> list[float]:
        found = []
        for _ in range(25):
            metrics = await policy.forward_backward(rows, cross_entropy, normaliser=5)
            await policy.optim_step(Adam(2e-2))
            found.append(metrics["loss"])
        return found

    losses = asyncio.run(learn())
    assert losses[-1] < 0.1 * losses[0]
    completions = asyncio.run(policy.sample(prompts(policy), sampling=Sampling(24, output=Output(labels=LABELS))))
    assert {group[0].text for group in completions} == {wanted}


def test_a_schema_is_kept(base: Policy) -> None:
    fields = {"queue": {"enum": ["billing", "account"]}, "urgent": {"type": "boolean"}}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    sampling = Sampling(64, temperature=1.0, output=Output(schema=schema))
    groups = asyncio.run(base.sample(prompts(base), n=2, sampling=sampling))
    allowed = {f'{{"queue": "{queue}", "urgent": {urgent}}}' for queue in ("billing", "account")
               for urgent in ("true", "false")}
    assert {completion.text for group in groups for completion in group} <= allowed


def test_length_ends_a_completion(base: Policy) -> None:
    for completion in asyncio.run(base.sample(prompts(base), n=1, sampling=Sampling(2, temperature=1.0)))[0]:
        assert completion.stop_reason == "stop" or len(completion.tokens) == 2
    with pytest.raises(UserError):
        asyncio.run(base.sample(prompts(base), n=1, sampling=Sampling(base.context_length)))


def test_a_stop_text_ends_a_completion_and_its_tokens_stay(base: Policy) -> None:
    policy = base.fork("stopped", SHAPE)
    asyncio.run(train(policy, 60, most_rows=1))
    completion = asyncio.run(policy.sample(prompts(policy)[:1], n=1, sampling=Sampling(16, stop=(" two",))))[0][0]
    assert (completion.text, completion.stop_reason) == ("one", "stop")
    assert " two" in policy.renderer.decode(completion.tokens)  # type: ignore[attr-defined]


def test_what_is_streamed_is_the_text(base: Policy) -> None:
    shown: dict[tuple[int, int], str] = {}

    def show(prompt: int, number: int, text: str) -> None:
        shown[prompt, number] = shown.get((prompt, number), "") + text

    async def stream() -> list[list[Any]]:
        groups = await base.sample(prompts(base), n=2, sampling=Sampling(8, temperature=1.0), on_text=show)
        await asyncio.sleep(0)  # callbacks from another thread
        return groups

    groups = asyncio.run(stream())
    assert shown == {(i, j): completion.text for i, group in enumerate(groups)
                     for j, completion in enumerate(group) if completion.text}


def test_every_step_is_a_new_version(base: Policy) -> None:
    policy = base.fork("versions", SHAPE)

    async def versions() -> list[int]:
        seen = []
        for _ in range(3):
            seen.append((await policy.sample(prompts(policy)[:1], sampling=Sampling(2)))[0][0].version)
            await train(policy, 1)
        return seen

    assert len(set(asyncio.run(versions()))) == 3
