"""The toy policy learns what its form allows.  What all engines share is in test_conformance.py."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain import candidates, graders
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines._toy_words import Words
from posttrain.engines.toy import ToyPolicy
from posttrain.rollouts import play
from posttrain.runs import Run
from posttrain.techniques import sft
from posttrain.types import Message, Output, Row, Task, UserError

WORDS = {"positive": ["good", "great", "fine", "lovely"], "negative": ["bad", "awful", "poor", "nasty"]}


def reviews(number: int = 150) -> Task:
    draw = random.Random(0)
    rows = []
    for i in range(number):
        label = draw.choice(list(WORDS))
        words = [*draw.choices(WORDS[label], k=2), *draw.choices(["the", "a", "of", "it"], k=3)]
        rows.append(Row(str(i), (Message("user", " ".join(draw.sample(words, len(words)))),), label))
    splits = {"train": tuple(rows[:90]), "dev": tuple(rows[90:110]), "test": tuple(rows[110:])}
    return Task("reviews", "1", "hash", "Say which.", splits, graders.load("exact", {}), Output(labels=tuple(WORDS)))


def score(candidate: PolicyCandidate, task: Task) -> float:
    groups = asyncio.run(play(candidate, task.rows("test"), task))
    return sum(bool(group[0].score and group[0].score.passed) for group in groups) / len(groups)


def test_a_technique_teaches_it_and_what_it_learnt_is_saved(tmp_path: Path) -> None:
    task = reviews()
    base = ToyPolicy.open_for(task)
    prompted = PolicyCandidate("toy", "prompt", base, task.instructions, task.output)
    taught = asyncio.run(sft.teach(prompted, task, Run(tmp_path / "run"), sft.Config(learning_rate=1e-2)))
    assert score(prompted, task) < 0.75 and score(taught, task) > 0.9
    asyncio.run(taught.save(tmp_path / "saved"))
    loaded = candidates.load(tmp_path / "saved", lambda _, folder: base.loaded(folder) if folder else base)
    assert isinstance(loaded, PolicyCandidate) and score(loaded, task) == score(taught, task)


@given(known=st.lists(st.text()), text=st.text())
def test_every_text_survives_its_tokens(known: list[str], text: str) -> None:
    words = Words(known)
    assert words.decode(words.encode(text)) == text
    assert all(token < len(words.tokens) for token in words.encode(text))


def test_known_words_are_one_token() -> None:
    words = Words(["the label printer"])
    assert len(words.encode("the printer")) == 3 and len(words.encode("the scanner")) == 2 + len("scanner")


def test_prompts_are_prefixes_of_data() -> None:
    render = ToyPolicy.open(["yes no"]).renderer
    messages = [Message("system", "s"), Message("user", "a"), Message("assistant", "yes"), Message("user", "b"),
                Message("assistant", "no", weight=0.5)]
    datum = render.datum(messages)
    for length in (2, 4):
        prompt = render.prompt(messages[:length])
        assert datum.tokens[:len(prompt)] == prompt
    assert render.decode([datum.tokens[i] for i in datum.trained]) == "yesno"
    assert [datum.weights[i] for i in datum.trained] == [1, 1, 0.5, 0.5]
    with pytest.raises(UserError, match="nothing to train"):
        render.datum(messages[:2])


def test_a_checkpoint_of_other_words_is_refused(tmp_path: Path) -> None:
    asyncio.run(ToyPolicy.open(["one two"]).fork("a").save(tmp_path))
    with pytest.raises(UserError, match="other words"):
        ToyPolicy.open(["three"]).loaded(tmp_path)


def test_a_dropped_policy_says_so() -> None:
    policy = ToyPolicy.open(["yes"]).fork("gone")
    policy.drop()
    with pytest.raises(RuntimeError, match="dropped"):
        asyncio.run(policy.logprobs([policy.renderer.datum([Message("user", "a"), Message("assistant", "yes")])]))
