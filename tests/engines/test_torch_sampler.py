"""What is written, and with which probabilities: the same however requests are batched, cached and streamed."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch_models import generated
from transformers import AutoModelForCausalLM

from posttrain import losses
from posttrain.engines.torch import drafts
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import Completion, Datum, LoRA, Message, Output, Sampling, UserError

QUESTIONS = ["where is my order?", "I was charged twice", "the printer is down", "good day", "grüß dich 😀, 你好"]
INSTRUCTIONS = "Please answer with one word: positive or negative. Nothing else, and do not explain what you do. " * 2


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Path) -> Iterator[TorchEngine]:
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    yield engine
    engine.close()


def ask(policy: TorchPolicy, text: str, system: str = "Answer.") -> tuple[int, ...]:
    return policy.renderer.prompt([Message("system", system), Message("user", text)])  # type: ignore[return-value]


def prompts(policy: TorchPolicy, system: str = "Answer.") -> list[tuple[int, ...]]:
    return [ask(policy, question, system) for question in QUESTIONS]


def sample(policy: TorchPolicy, asked: Sequence[Any], sampling: Sampling, n: int = 1) -> list[list[Completion]]:
    return asyncio.run(policy.sample(asked, n=n, sampling=sampling))


def texts(groups: Sequence[Sequence[Completion]]) -> list[list[str]]:
    return [[completion.text for completion in group] for group in groups]


def answers_to(policy: TorchPolicy, answer: str) -> list[Datum]:
    asked = [Message("system", "Answer."), Message("user", QUESTIONS[0])]
    return [policy.renderer.datum([*asked, Message("assistant", answer)])]


async def learn(policy: TorchPolicy, answer: str, steps: int = 1, learning_rate: float = 1e-2) -> None:
    for _ in range(steps):
        data = answers_to(policy, answer)
        await policy.forward_backward(data, losses.cross_entropy, normaliser=len(data[0].trained))
        await policy.optim_step(Adam(learning_rate))


# ---- the same as transformers, alone or together

def test_greedy_is_that_of_generate(engine: TorchEngine, tiny_model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    for system in ("Answer.", INSTRUCTIONS):
        asked = prompts(engine.base(), system)
        for prompt, (completion,) in zip(asked, sample(engine.base(), asked, Sampling(40)), strict=True):
            assert completion.tokens == generated(model, engine, prompt, 40)
            assert completion.prompt == prompt and completion.prompt_tokens == len(prompt)
            assert completion.completion_tokens == len(completion.tokens)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.9])
def test_logprobs_are_those_of_the_sampling_temperature(engine: TorchEngine, temperature: float) -> None:
    policy = engine.base()
    sampling = Sampling(16, temperature=temperature, seed=3, top_k=20, top_p=0.9)
    for group in sample(policy, prompts(policy, INSTRUCTIONS), sampling, n=2):
        for completion in group:
            tokens = torch.tensor([[*completion.prompt, *completion.tokens]])
            hidden = asyncio.run(hidden_states(engine, tokens[0].tolist()))
            wanted = (hidden[len(completion.prompt) - 1: -1] / temperature).log_softmax(dim=1)
            wanted = wanted.gather(1, tokens[0, len(completion.prompt):, None])[:, 0]
            assert completion.logprobs == pytest.approx(wanted.tolist(), abs=1e-4), "before truncation"


async def hidden_states(engine: TorchEngine, tokens: list[int]) -> torch.Tensor:
    from posttrain.engines.torch.forest import plant  # noqa: PLC0415

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return engine.network.head(engine.network.forest(plant([tokens], [""]))[0]).float()

    return await engine.thread.run(forward)


def test_a_request_is_answered_alike_in_any_company(engine: TorchEngine) -> None:
    policy, sampling = engine.base(), Sampling(24, temperature=1.0, seed=5)
    asked = prompts(policy)
    alone = [texts(sample(policy, [prompt], sampling, n=3))[0] for prompt in asked]
    assert len({text for group in alone for text in group}) > 12
    assert texts(sample(policy, asked, sampling, n=3)) == alone
    assert texts(sample(policy, asked[::-1], sampling, n=3)) == alone[::-1]
    assert texts(sample(policy, asked[1:2], sampling, n=2))[0] == alone[1][:2], "the first two of three"

    async def in_a_crowd() -> list[list[str]]:
        crowd = asyncio.gather(*(policy.sample([ask(policy, f"another one {i}", INSTRUCTIONS)], n=5,
                                               sampling=Sampling(4 + 3 * i, temperature=1.0)) for i in range(8)))
        await asyncio.sleep(0.02)
        groups = await asyncio.gather(*(policy.sample([prompt], n=3, sampling=sampling) for prompt in asked))
        await crowd
        return [texts(group)[0] for group in groups]

    assert asyncio.run(in_a_crowd()) == alone


def test_more_than_there_are_slots_are_all_answered(engine: TorchEngine) -> None:
    policy, sampling = engine.base(), Sampling(3, temperature=1.0)
    groups = sample(policy, prompts(policy), sampling, n=40)  # 200 of 64 at a time
    assert [len(group) for group in groups] == [40] * 5
    assert texts(groups)[3][-2:] == texts(sample(policy, prompts(policy)[3:4], sampling, n=40))[0][-2:]
    assert not engine.sampler.rows and not engine.sampler.waiting


# ---- how it ends, what may be drawn

def test_max_tokens_bounds_an_answer(engine: TorchEngine) -> None:
    for completion in sample(engine.base(), prompts(engine.base())[:1], Sampling(5, temperature=2.0), n=20)[0]:
        assert len(completion.tokens) <= 5
        ended = completion.tokens[-1] in engine.sampler.stop_tokens
        assert completion.stop_reason == ("stop" if ended else "length")
        assert completion.text == engine.renderer.decode(completion.tokens)


def test_a_stop_string_ends_an_answer(engine: TorchEngine) -> None:
    policy, sampling = engine.base(), Sampling(30, temperature=1.5, seed=2)
    free = sample(policy, prompts(policy), sampling, n=4)
    whole = max((completion.text for group in free for completion in group), key=len)
    stops = (whole[7:9], whole[12:14])
    for before, after in zip(free, sample(policy, prompts(policy), replace(sampling, stop=stops), n=4), strict=True):
        for one, other in zip(before, after, strict=True):
            cuts = [one.text.find(stop) for stop in stops if stop in one.text]
            if not cuts:
                assert other.text == one.text and other.stop_reason == one.stop_reason
                continue
            assert other.text == one.text[:min(cuts)] and other.stop_reason == "stop"
            assert other.tokens == one.tokens[:len(other.tokens)], "the tokens of the stop string stay"
            assert any(stop in engine.renderer.decode(other.tokens) for stop in stops)


# ---- output constraints

LABELS = ("a", "ab", "abc", "order", "order status", "no", "é", "你好")


def test_labels_that_begin_one_another_share_all_probability(engine: TorchEngine) -> None:
    policy = engine.base()
    prompt = ask(policy, "which?")
    found: dict[str, tuple[float, tuple[int, ...]]] = {}
    for seed in range(60):
        for completion in sample(policy, [prompt], Sampling(24, 1.0, seed=seed, output=Output(labels=LABELS)), n=8)[0]:
            assert completion.text in LABELS and completion.stop_reason == "stop"
            confidence, tokens = found.setdefault(completion.text, (completion.confidence or 0.0, completion.tokens))
            assert tokens == completion.tokens and confidence == pytest.approx(completion.confidence, rel=1e-3)
    rare = 1 - sum(confidence for confidence, _ in found.values())
    assert len(found) > 3 and -1e-3 < rare < 0.02
    # the likeliest path is the greedy one wherever greedy and sampled decoding meet
    greedy = sample(policy, [prompt], Sampling(24, output=Output(labels=LABELS)))[0][0]
    assert greedy.text in found and greedy.confidence == pytest.approx(found[greedy.text][0], rel=1e-3)


# Once sampler.py _admit: what is forced from the start may already be the whole answer; _write then asks the constraint
# for one more token, whose mask is empty (LabelConstraint: KeyError, and every request in flight fails with it).
@pytest.mark.parametrize("output", [
    Output(labels=("only",)),
    Output(schema={"const": {"a": 1}}),
    Output(schema={"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"],
                   "additionalProperties": False}),
])
def test_a_form_that_leaves_no_choice_is_written(engine: TorchEngine, output: Output) -> None:
    completion = sample(engine.base(), prompts(engine.base())[:1], Sampling(32, 1.0, output=output))[0][0]
    assert completion.text in ("only", '{"a": 1}', '{"a": "x"}') and completion.stop_reason == "stop"
    assert not any(completion.chosen) and set(completion.logprobs) == {0.0}
    assert completion.confidence == pytest.approx(1.0)


# ---- what is alike is computed once

def test_a_group_is_computed_once_until_it_parts(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, fed, feed = engine.base(), [], engine.network.feed
    monkeypatch.setattr(drafts, "LONGEST_DRAFT", 0)  # nothing is guessed

    def counted(tokens: Any, *rest: Any) -> Any:
        fed.append(len(tokens))
        return feed(tokens, *rest)

    monkeypatch.setattr(engine.network, "feed", counted)
    (alone,) = sample(policy, prompts(policy)[:1], Sampling(12))[0]
    once = list(fed)
    fed.clear()
    group = sample(policy, prompts(policy)[:1], Sampling(12), n=7)[0]
    assert fed == once and once, "greedy answers never part"
    assert all(completion.tokens == alone.tokens for completion in group)
    fed.clear()
    group = sample(policy, prompts(policy)[:1], Sampling(12, temperature=0.5, seed=2), n=12)[0]
    distinct = {completion.tokens[: i + 1] for completion in group for i in range(len(completion.tokens) - 1)}
    assert sum(fed) == len(distinct) < sum(len(completion.tokens) - 1 for completion in group)


@pytest.mark.parametrize("output", [None, Output(labels=LABELS)])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_those_that_part_write_what_they_write_alone(
        engine: TorchEngine, temperature: float, output: Output | None, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, sampling = engine.base(), Sampling(16, temperature=temperature, seed=3, output=output)
    together = sample(policy, prompts(policy), sampling, n=9)
    monkeypatch.setattr(engine.sampler, "slot_tokens", 1)
    alone = sample(policy, prompts(policy), sampling, n=9)
    for one, other in zip(itertools.chain(*together), itertools.chain(*alone), strict=True):
        assert one.tokens == other.tokens and one.stop_reason == other.stop_reason
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert not engine.sampler.stems.all


SCHEMAS = {
    "nested": {"type": "object", "additionalProperties": False, "required": ["queue", "detail", "tags"], "properties": {
        "queue": {"enum": ["billing", "bill", "order", "order status"]},
        "detail": {"type": "object", "additionalProperties": False, "required": ["urgent", "level"], "properties": {
            "urgent": {"type": "boolean"}, "level": {"type": "integer", "minimum": 1, "maximum": 5}}},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}}},
    "null": {"type": "object", "additionalProperties": False, "required": ["reference"], "properties": {
        "reference": {"anyOf": [{"type": "string", "pattern": "^A-[0-9]{5}$"}, {"type": "null"}]}}},
    "text": {"type": "object", "additionalProperties": False, "required": ["reason"], "properties": {
        "reason": {"type": "string", "maxLength": 12}}},
    "optional": {"type": "object", "additionalProperties": False, "properties": {
        "first": {"enum": [1, 2.5, None, True]}, "second": {"type": "string", "maxLength": 3}}},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_fits_the_schema(engine: TorchEngine, name: str) -> None:
    schema, seen = SCHEMAS[name], set()
    sampling = Sampling(96, temperature=1.0, output=Output(schema=schema))
    for group in sample(engine.base(), prompts(engine.base()), sampling, n=12):
        for completion in group:
            assert completion.stop_reason == "stop" and completion.tokens[-1] in engine.sampler.stop_tokens
            value = json.loads(completion.text)
            jsonschema.validate(value, schema)
            assert completion.text == json.dumps(value, ensure_ascii=False) or "\\" in completion.text
            assert 0 < (completion.confidence or 0) <= 1 and any(completion.chosen)
            assert all(logprob == 0 for logprob, chosen in zip(completion.logprobs, completion.chosen, strict=True)
                       if not chosen)
            seen.add(completion.text)
    assert len(seen) > 1


def test_a_schema_that_cannot_be_enforced_is_refused(engine: TorchEngine) -> None:
    with pytest.raises(UserError, match="schema"):
        sample(engine.base(), prompts(engine.base())[:1],
               Sampling(8, output=Output(schema={"type": "string", "format": "no such format", "not": {}})))
    assert sample(engine.base(), prompts(engine.base())[:1], Sampling(2))[0][0].tokens, "and the engine lives on"


# ---- streaming

class Shown:
    """What arrived for each completion, and in how many pieces."""

    def __init__(self) -> None:
        self.texts: dict[tuple[int, int], str] = {}
        self.pieces = 0

    def __call__(self, prompt: int, number: int, text: str) -> None:
        self.pieces += 1
        self.texts[prompt, number] = self.texts.get((prompt, number), "") + text


def stream(policy: TorchPolicy, asked: Sequence[Any], sampling: Sampling, n: int = 1) -> tuple[Shown, list[list[str]]]:
    shown = Shown()

    async def run() -> list[list[str]]:
        groups = await policy.sample(asked, n=n, sampling=sampling, on_text=shown)
        await asyncio.sleep(0.01)  # callbacks from the torch thread
        return texts(groups)

    return shown, asyncio.run(run())


@pytest.mark.parametrize("stop", [(), ("e",), ("er", "in", " t")])
def test_what_is_streamed_is_the_text(engine: TorchEngine, stop: tuple[str, ...]) -> None:
    shown, whole = stream(engine.base(), prompts(engine.base()), Sampling(40, 1.5, seed=9, stop=stop), n=6)
    assert shown.texts == {(i, j): text for i, group in enumerate(whole) for j, text in enumerate(group) if text}
    assert shown.pieces > 2 * len(shown.texts), "piece by piece"


@pytest.mark.parametrize(("answer", "stop", "wanted"), [
    ("é😀你好👩‍👩‍👧!", (), "é😀你好👩‍👩‍👧!"),
    ("one 你好。two", ("。",), "one 你好"),
    ("one 你好。two", ("好。",), "one 你"),  # half a character hid that a stop began
    ("one two three", ("two th",), "one "),
])
def test_characters_of_many_bytes_arrive_whole(engine: TorchEngine, answer: str, stop: tuple[str, ...],
                                               wanted: str) -> None:
    policy = engine.base().fork("multi-byte", LoRA(rank=16))
    asyncio.run(learn(policy, answer, steps=60))
    shown, whole = stream(policy, prompts(policy)[:1], Sampling(60, stop=stop))
    assert whole == [[wanted]] and shown.texts == {(0, 0): wanted}


# ---- the prefix cache

def trunk_prompts(policy: TorchPolicy) -> list[tuple[int, ...]]:
    return prompts(policy, INSTRUCTIONS)


@pytest.mark.parametrize("system", ["Answer.", INSTRUCTIONS])
def test_a_group_that_parts_shares_its_prompt(
        engine: TorchEngine, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys and values are held once, and a slot has room for what is written."""
    policy, drawn = engine.base(), Sampling(16, temperature=1.5, seed=2)
    asked = prompts(policy, system)[:3]
    room: dict[int, int] = {}
    monkeypatch.setattr(drafts, "LONGEST_DRAFT", 0)  # else all would be guessed the second time
    for worth in (10**9, -(10**9)):
        monkeypatch.setattr("posttrain.engines.torch.stems.WORTH_SHARING", worth)
        decode = engine.sampler._decode

        def noted(worth: int = worth, decode: Any = decode) -> None:
            decode()
            room[worth] = max(room.get(worth, 0), engine.sampler.stems.slots.capacity)

        with monkeypatch.context() as patch:
            patch.setattr(engine.sampler, "_decode", noted)
            engine.sampler.stems.slots.release()
            found = texts(sample(policy, asked, drawn, n=6))
        if worth > 0:
            wanted = found
    assert found == wanted and len({text for group in found for text in group}) > 12
    assert room[-(10**9)] <= room[10**9] - 16


def test_prefixes_that_are_kept_are_bounded(engine: TorchEngine) -> None:
    policy, trunks = engine.base(), engine.sampler.trunks
    most, trunks.most_tokens = trunks.most_tokens, 300
    try:
        for i in range(4):
            sample(policy, prompts(policy, f"{i} {INSTRUCTIONS}"), Sampling(2))
            held = [len(trunk.tokens) for trunk in trunks.trunks.values()]
            assert sum(held) <= 300 or len(held) == 1
        assert held, "the last is kept in any case"
    finally:
        trunks.most_tokens = most


def test_a_cached_prefix_changes_nothing(engine: TorchEngine) -> None:
    policy, sampling = engine.base(), Sampling(20, temperature=1.0, seed=8)
    engine.sampler.trunks.trunks.clear()
    engine.sampler.trunks.latest.clear()
    alone = [texts(sample(policy, [prompt], sampling))[0] for prompt in trunk_prompts(policy)[:1]]
    assert not engine.sampler.trunks.trunks, "nothing shared yet"
    together = texts(sample(policy, trunk_prompts(policy), sampling))
    assert engine.sampler.trunks.trunks, "the instructions are a trunk now"
    assert together[:1] == alone
    assert texts(sample(policy, trunk_prompts(policy), sampling)) == together
    assert [texts(sample(policy, [prompt], sampling))[0] for prompt in trunk_prompts(policy)] == together
    mixed = [trunk_prompts(policy)[2], prompts(policy)[1], trunk_prompts(policy)[4]]
    assert texts(sample(policy, mixed, sampling))[::2] == [together[2], together[4]]


def test_a_trained_policy_does_not_see_the_old_prefix(
        engine: TorchEngine, tiny_model_folder: Path, tmp_path: Path) -> None:
    policy, sampling = engine.base().fork("trained between"), Sampling(16, temperature=1.0, seed=1)
    histories = []
    for round_number in range(3):
        histories.append(texts(sample(policy, trunk_prompts(policy), sampling, n=2)))
        folder = tmp_path / str(round_number)
        asyncio.run(policy.save(folder))
        fresh = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
        try:
            assert histories[-1] == texts(sample(fresh.load(folder), trunk_prompts(policy), sampling, n=2))
        finally:
            fresh.close()
        asyncio.run(learn(policy, "yes yes"))
    assert histories[0] != histories[1] != histories[2]


def scratch_answers(folder: Path, model: Path, asked: Sequence[Any], sampling: Sampling) -> list[list[str]]:
    """What an engine that has seen nothing else answers with a saved adapter."""
    fresh = TorchEngine.open(str(model), device="cpu", precision="float32")
    try:
        return texts(sample(fresh.load(folder), asked, sampling))
    finally:
        fresh.close()


# Once engine.py / cache.py: trunks are keyed by (name, version), and both come again after drop() or load().
# Key them by something that never returns (a counter drawn whenever an adapter's weights change).
def test_a_name_used_again_does_not_see_the_prefix_of_its_predecessor(
        engine: TorchEngine, tiny_model_folder: Path, tmp_path: Path) -> None:
    sampling, asked = Sampling(12, temperature=1.0, seed=1), trunk_prompts(engine.base())
    for name, answer in (("one", "yes"), ("two", "no no no")):
        policy = engine.base().fork(name)
        asyncio.run(learn(policy, answer, steps=3))
        asyncio.run(policy.save(tmp_path / name / "adapter"))
    first = engine.load(tmp_path / "one" / "adapter")
    sample(first, asked, sampling)
    first.drop()
    second = engine.load(tmp_path / "two" / "adapter")
    assert texts(sample(second, asked, sampling)) == scratch_answers(
        tmp_path / "two" / "adapter", tiny_model_folder, asked, sampling)


# Once engine.py load(): read_optimiser sets the version back, so that a version number comes twice with other weights.
def test_a_policy_set_back_and_trained_otherwise_does_not_see_the_prefix_of_the_first_try(
        engine: TorchEngine, tiny_model_folder: Path, tmp_path: Path) -> None:
    sampling, policy = Sampling(12, temperature=1.0, seed=1), engine.base().fork("set back")
    asked = trunk_prompts(policy)
    asyncio.run(learn(policy, "yes"))
    asyncio.run(policy.save(tmp_path / "checkpoint", optimiser=True))
    asyncio.run(learn(policy, "yes yes yes", steps=1))
    sample(policy, asked, sampling)
    asyncio.run(policy.load(tmp_path / "checkpoint"))
    asyncio.run(learn(policy, "no", steps=1))
    asyncio.run(policy.save(tmp_path / "now"))
    assert texts(sample(policy, asked, sampling)) == scratch_answers(
        tmp_path / "now", tiny_model_folder, asked, sampling)
