"""Agents that are asked in an episode: what each sees, what is recorded of it, what it is taught, and who learns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from posttrain import candidates, environments, graders, tasks
from posttrain.candidates.policy import PolicyCandidate
from posttrain.engines.toy import ToyPolicy
from posttrain.environments._agents import by_agent
from posttrain.rollouts import play, worked
from posttrain.runs import Budget, Run
from posttrain.tasks.loading import load
from posttrain.techniques import _chain as chain
from posttrain.techniques import _each_agent, _groups, _record, grpo, sft
from posttrain.techniques._team import Team
from posttrain.types import (
    Completion,
    Environment,
    LearntNothing,
    Message,
    Output,
    Policy,
    Rollout,
    Row,
    Sampling,
    Score,
    Task,
    UserError,
)

ADDER = {"description": "Adds.", "instructions": "Add the numbers.", "max_tokens": 4}
ROW = Row("r", (Message("user", "What is 1 + 2?"),), "3")
ASKS = "adder(question='1 + 2')"


@dataclass(frozen=True)
class Scripted:
    """Says what a script has for the turn; `agents` are others of its kind."""

    says: tuple[str, ...] = ("3",)
    agents: dict[str, Scripted] = field(default_factory=dict)
    name, kind, model = "scripted", "prompt", ""
    asked: list[tuple[Row, Sampling | None]] = field(default_factory=list)

    async def attempt(self, rows: Sequence[Row], *, n: int = 1, sampling: Sampling | None = None) -> list[list[Rollout]]:
        (row,) = rows
        self.asked.append((row, sampling))
        turn = sum(message.role == "assistant" for message in row.messages)
        says = self.says[turn]
        if says.startswith("!"):
            return [[Rollout(row, error=says[1:])] * n]
        return [[Rollout(row, row.messages, Completion(says, "stop"))] * n]


def world(**options: Any) -> Environment:
    return environments.load("tools", {"agents": {"adder": ADDER}, "form": "python", **options})


def played(candidate: Any, environment: Environment | None = None, sampling: Sampling | None = None) -> Rollout:
    [[rollout]] = asyncio.run((environment or world()).attempt(candidate, [ROW], sampling=sampling))
    return rollout


def test_an_agent_is_asked_like_a_tool_and_sees_its_question_alone() -> None:
    adder = Scripted()
    rollout = played(Scripted((ASKS, "it is 3"), {"adder": adder}))
    assert [message.content for message in rollout.messages][-1] == "3" and rollout.answer == "it is 3"
    assert [tool["function"]["name"] for tool in adder.asked[0][0].tools] == [] and rollout.agent == ""
    assert [message.content for message in adder.asked[0][0].messages] == ["1 + 2"]
    (asked,) = rollout.asked
    assert (asked.agent, asked.answer, asked.row.id) == ("adder", "3", "r/adder-1") and not asked.error


def test_every_question_has_a_seed_and_a_length_of_its_own() -> None:
    adder = Scripted()
    played(Scripted((ASKS, ASKS, "3"), {"adder": adder}), sampling=Sampling(max_tokens=50, temperature=1.0, seed=7))
    sampled = [sampling for _, sampling in adder.asked if sampling]
    assert len({sampling.seed for sampling in sampled}) == 2
    assert {(sampling.max_tokens, sampling.temperature) for sampling in sampled} == {(4, 1.0)}


def test_an_agent_that_fails_is_told_to_who_asked_and_one_that_is_missing_ends_the_episode() -> None:
    failing = Scripted(("!policy: it is away",))
    rollout = played(Scripted((ASKS, "sorry"), {"adder": failing}))
    assert rollout.messages[-1].content == "error: policy: it is away" and rollout.answer == "sorry"
    assert rollout.asked[0].error == "policy: it is away" and not rollout.error
    alone = played(Scripted((ASKS, "sorry")))
    assert alone.error == "policy: scripted has nobody to be adder"


def test_agents_have_tools_and_agents_of_their_own() -> None:
    inner = {"reader": {**ADDER, "instructions": "Read."}}
    outer = {"researcher": {**ADDER, "agents": inner, "tools": ["calculator"], "form": "python", "turns": 3}}
    environment = environments.load("tools", {"agents": outer, "form": "python"})
    researcher = Scripted(("calculator('6 * 7')", "reader('what?')", "42"), {"reader": Scripted(("this",))})
    rollout = played(Scripted(("researcher('how many?')", "42")), environment)
    assert rollout.error == "policy: scripted has nobody to be researcher"
    rollout = played(Scripted(("researcher('how many?')", "42"), {"researcher": researcher}), environment)
    assert [name for name, _ in by_agent(rollout)] == ["main", "researcher", "researcher.reader"]
    assert rollout.asked[0].asked[0].answer == "this" and len(rollout.asked[0].turns) == 3 and not rollout.error


@pytest.mark.parametrize(("agents", "message"), [
    ({"main": ADDER}, "cannot be called 'main'"), ({"two words": ADDER}, "cannot be called"), ({"adder": 3}, "not told whole"),
    ({"adder": {"description": "Adds."}}, "not told whole"), ({"adder": {**ADDER, "max_tokens": 0}}, "not told whole"),
    ({"adder": {**ADDER, "tuls": ["calculator"]}}, "no option 'tuls'"), ({"calculator": ADDER}, "two tools are called"),
    ({"adder": {**ADDER, "turns": 3}}, "no tools"),
])  # fmt: skip
def test_an_agent_that_cannot_be_is_refused(agents: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        environments.load("tools", {"agents": agents, "tools": ["calculator"]})


# ---- teaching

PAIRS = [("red", "one"), ("blue", "two"), ("green", "three"), ("black", "four")]


def colours() -> Task:
    """The main agent is asked for a colour's number, which the other one knows."""
    rows = []
    for i in range(16):
        colour, number = PAIRS[i % 4]
        calls = [{"name": "knower", "arguments": {"question": colour}, "said": number}]
        rows.append(Row(str(i), (Message("user", f"say {colour}"),), number, metadata={"calls": calls}))
    knower = {"description": "Knows.", "instructions": "Which number?", "max_tokens": 3}
    environment = environments.load("tools", {"agents": {"knower": knower}, "form": "python", "turns": 2})
    splits = {"train": tuple(rows), "dev": tuple(rows[:4]), "test": tuple(rows[:4])}
    return Task("colours", "1", "hash", "Ask.", splits, graders.load("exact", {}), Output(max_tokens=8), environment=environment)


def start(task: Task) -> PolicyCandidate:
    calls = [f"knower(question='{colour}')" for colour, _ in PAIRS]
    texts = ["Ask.", "Which number?", "Result of the tool call:", *calls, *(f"say {one} {two}" for one, two in PAIRS)]
    return PolicyCandidate.of("toy", ToyPolicy.open(texts), task)


TAUGHT = sft.Config(learning_rate=1e-2, epochs=20, batch_size=1, patience=99)
QUICK = grpo.Config(steps=6, rows_per_step=4, group_size=6, learning_rate=3e-3, evaluate_every=6, dev_rows=4, fooled="warn",
                    patience_without_signal=100)


def weights(policy: Policy) -> bytes:
    assert isinstance(policy, ToyPolicy)
    return b"".join(policy.tables[name].detach().numpy().tobytes() for name in sorted(policy.tables))


def test_rows_say_what_an_agent_was_asked_and_it_is_taught_that_by_itself() -> None:
    task = colours()
    (row, *_), each = asyncio.run(worked(task)).rows("train"), _each_agent.tasks(task)
    assert [message.content for message in row.worked] == ["knower(question='red')", "one"]
    assert [*each] == ["main", "knower"] and each["knower"].instructions == "Which number?"
    assert [(row.text, row.target) for row in each["knower"].rows("train")] == PAIRS, "each question once"
    assert each["knower"].environment is None and "test" not in each["knower"].splits
    blank = replace(task, splits={"train": tuple(replace(row, metadata={}) for row in task.rows("train"))})
    assert [*_each_agent.tasks(blank)] == ["main"], "nothing tells what it should say"


def test_what_an_agent_said_may_not_be_missing() -> None:
    task = colours()
    rows = tuple(replace(row, metadata={"calls": [{"name": "knower", "arguments": {"question": "x"}}]})
                 for row in task.rows("train"))
    with pytest.raises(UserError, match="what knower said is missing"):
        asyncio.run(worked(replace(task, splits={"train": rows})))


def test_fine_tuning_teaches_each_agent_and_what_was_taught_is_saved_with_it(tmp_path: Path) -> None:
    task = colours()
    taught = asyncio.run(chain.teach("sft", start(task), task, Run(tmp_path / "run"), last=TAUGHT))
    assert isinstance(taught, PolicyCandidate)
    groups = asyncio.run(play(taught, task.rows("test"), task))
    assert [rollout.score.value for (rollout,) in groups if rollout.score] == [1.0] * 4
    assert [rollout.asked[0].answer for (rollout,) in groups] == [number for _, number in PAIRS]
    assert (tmp_path / "run/sft/agents/knower/metrics.jsonl").exists()
    alone = sum(_tokens(tmp_path / "run/sft" / part) for part in ("", "agents/knower"))
    assert taught.details["training"]["trained_tokens"] == alone

    def open_policy(model: str, folder: Path | None) -> Policy:  # noqa: ARG001
        policy = start(task).policy.fork("again")
        if folder:
            asyncio.run(policy.load(folder))
        return policy

    asyncio.run(taught.save(tmp_path / "saved"))
    again = candidates.load(tmp_path / "saved", open_policy)
    assert isinstance(again, PolicyCandidate)
    for name, member in taught.team().items():
        assert weights(again.team()[name].policy) == weights(member.policy)
    assert [rollout.answer for (rollout,) in asyncio.run(play(again, task.rows("test"), task))] == [one for _, one in PAIRS]


def _tokens(folder: Path) -> int:
    return sum(int(record.get("trained_tokens", 0)) for record in Run(folder).metrics())


@pytest.mark.parametrize("train", ["", "main", "knower", "main, knower"])
def test_reinforcement_learning_moves_those_that_it_shall_and_no_others(tmp_path: Path, train: str) -> None:
    task = colours()
    begun = asyncio.run(chain.teach("sft", start(task), task, Run(tmp_path / "sft"), last=TAUGHT))
    assert isinstance(begun, PolicyCandidate)
    before = {name: weights(member.policy) for name, member in begun.team().items()}
    run = Run(tmp_path / "grpo", budget=Budget(steps=6))
    training = _training(begun, task, run, replace(QUICK, train=train))
    asyncio.run(training.run_steps())
    wanted = {name.strip() for name in train.split(",") if train} or {"main", "knower"}
    assert {*training.team.policies} == wanted
    for name, member in training.learner.team().items():
        assert (weights(member.policy) != before[name]) == (name in wanted), name
    assert {name: weights(member.policy) for name, member in begun.team().items()} == before, "it is a copy that learns"
    records = [record for record in run.metrics() if "reward" in record]
    assert all(("loss" in record) == ("main" in wanted) for record in records if _learnt(record))
    assert any("knower_loss" in record for record in records) == ("knower" in wanted)
    assert any(record["asked_knower"] > 0 for record in records)
    lines = (tmp_path / "grpo/rollouts/step-00000.jsonl").read_text().splitlines()
    assert any(said["agent"] == "knower" for line in lines for said in json.loads(line)["asked"])


@pytest.mark.parametrize("train", ["", "knower"])
def test_a_training_of_several_that_was_cut_short_goes_on_to_the_same_weights(tmp_path: Path, train: str) -> None:
    task, config = colours(), replace(QUICK, train=train, evaluate_every=2)
    begun = asyncio.run(chain.teach("sft", start(task), task, Run(tmp_path / "sft"), last=TAUGHT))
    assert isinstance(begun, PolicyCandidate)
    whole = _training(begun, task, Run(tmp_path / "whole"), config)
    asyncio.run(whole.run_steps())
    cut = _training(begun, task, Run(tmp_path / "cut"), config)

    async def killed() -> None:
        if cut.seen.step == 5:
            raise KeyboardInterrupt
        await grpo.Training._one_step(cut)

    cut._one_step = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cut.run_steps())
    again = _training(begun, task, Run(tmp_path / "cut"), config)
    asyncio.run(again.run_steps())
    assert again.seen.step == whole.seen.step == 6
    for name, policy in whole.team.policies.items():
        assert weights(again.team.policies[name]) == weights(policy) != weights(begun.team()[name].policy)


def _learnt(record: dict[str, Any]) -> bool:
    return "trained_tokens" in record or "knower_trained_tokens" in record


def _training(begun: PolicyCandidate, task: Task, run: Run, config: grpo.Config) -> grpo.Training:
    """As grpo.teach has it, which gives nothing back where nothing better was found."""
    names = [name.strip() for name in config.train.split(",") if name.strip()] or [*begun.team()]
    learners = {name: replace(begun.team()[name], policy=begun.team()[name].policy.fork(name)) for name in names}

    class AsItIs(grpo.Training):
        """Whatever came of it, the best not gone back to."""

        async def _judge(self) -> None:
            await self.team.save(self.run.folder / "best")
            self.seen.best.step = 1

    team = Team({name: learner.policy for name, learner in learners.items()})
    return AsItIs(begun.with_team(learners), team, task, run, config, grpo.graded_rewards, {})


def test_who_learns_nothing_stays_as_it_was_and_whoever_was_taught_by_a_stop_is_kept(tmp_path: Path) -> None:
    task, failing = colours(), "knower"

    async def teach_one(candidate: PolicyCandidate, own: Task, run: Run) -> PolicyCandidate:
        if (candidate.name == "knower") == (failing == "knower"):
            raise LearntNothing("it knows all that", place="here", remedy="none")
        taught = await sft.teach(candidate, own, run, TAUGHT)
        run.stop.asked = True
        return taught

    for failing, learns in (("knower", "main"), ("main", "knower")):
        run = Run(tmp_path / failing)
        taught = asyncio.run(_each_agent.teach(start(task), task, run, teach_one))
        assert [name for name, member in taught.team().items() if member.kind == "weights"] == [learns]
        if failing == "knower":
            assert taught.details["knower stays as it was"] == "it knows all that"
        assert taught.details["training"]["trained_tokens"] > 0

    async def never(candidate: PolicyCandidate, own: Task, run: Run) -> PolicyCandidate:  # noqa: ARG001
        raise LearntNothing("nothing", place="here", remedy="none")

    with pytest.raises(LearntNothing):
        asyncio.run(_each_agent.teach(start(task), task, Run(tmp_path / "never"), never))


def test_what_fails_while_it_is_asked_is_not_learnt_from_and_written_down(tmp_path: Path) -> None:
    completion = Completion("x", "stop", (3, 1), (-0.5, -0.5), (True, True), prompt=(9,))
    broken = Rollout(ROW, ROW.messages, completion, error="tool: it died", agent="helper")
    attempts = [Rollout(ROW, ROW.messages, completion, Score(value, False), asked=(broken,)) for value in (0, 1)]
    group = _groups.Group.of(attempts, [0.0, 1.0], grpo.Config(), agents=("helper",))
    assert not group.teaches
    _record.write_rollouts(Run(tmp_path), 0, [attempts], [[0.0, 1.0]])
    line = (tmp_path / "rollouts/step-00000.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["asked"][0]["error"] == "tool: it died"


def test_contradictions_are_refused_and_what_is_learnt_is_not_judged_by() -> None:
    task = colours()
    rows = task.rows("train")
    other = replace(rows[1], metadata={"calls": [{"name": "knower", "arguments": {"question": "red"}, "said": 2}]})
    with pytest.raises(UserError, match="says 'one' to 'red', and '2'"):
        _each_agent.tasks(replace(task, splits={"train": (rows[0], other)}))
    new = replace(rows[1], metadata={"calls": [{"name": "knower", "arguments": {"question": "pink"}, "said": 5}]})
    found = _each_agent.tasks(replace(task, splits={"train": rows, "dev": (rows[0], new)}))["knower"]
    assert [(row.text, row.target) for row in found.rows("dev")] == [("pink", "5")]
    (row,) = asyncio.run(worked(replace(task, splits={"train": (new,)}))).rows("train")
    assert row.worked[-1].content == "5", "a number is a text that was said"


def test_an_agent_that_is_not_there_cannot_be_trained(tmp_path: Path) -> None:
    task = colours()
    with pytest.raises(UserError, match="no agent 'nobody' to be trained") as caught:
        asyncio.run(grpo.teach(start(task), task, Run(tmp_path), replace(QUICK, train="main, nobody")))
    assert "main, knower" in caught.value.remedy


def test_each_agent_has_a_group_of_its_own() -> None:
    """Two answers of three in two attempts: every one is rewarded with what its attempt earned, and its baseline is the
    mean over those of its agent alone."""
    def said(agent: str, token: int, *asked: Rollout) -> Rollout:
        completion = Completion("x", "stop", (token, 1), (-0.5, -0.5), (True, True), prompt=(9,))
        return Rollout(Row("r", ROW.messages), ROW.messages, completion, Score(0, False), agent=agent, asked=asked)

    failed = Rollout(ROW, error="policy: away", agent="helper")
    attempts = [said("", 2, said("helper", 3), said("helper", 4)), said("", 5, said("helper", 6), failed)]
    group = _groups.Group.of(attempts, [1.0, 0.0], grpo.Config(scaled=False), agents=("main", "helper"))
    found = {name: [(datum.tokens[1], datum.advantages[-1]) for datum in data] for name, data in group.lessons.items()}
    assert found["main"] == [(2, 0.5), (5, -0.5)]
    assert found["helper"] == [(3, pytest.approx(1 / 3)), (4, pytest.approx(1 / 3)), (6, pytest.approx(-2 / 3))]
    alone = _groups.Group.of(attempts, [1.0, 0.0], grpo.Config(), agents=("main",))
    assert [*alone.lessons] == ["main"] and alone.has_signal and alone.teaches
    silent = _groups.Group.of([said("", 2), said("", 5)], [1.0, 0.0], grpo.Config(), agents=("helper",))
    assert not silent.teaches and not silent.has_signal, "nobody asked it"


def test_a_task_with_agents_is_read_from_its_folder(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        calls = [{"name": "adder", "arguments": {"question": "1 + 2"}, "said": "3"}]
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"input": split, "target": "3", "metadata": {"calls": calls}}) + "\n")
    (tmp_path / "task.toml").write_text(
        '[grader]\nname = "exact"\n[output]\nmax_tokens = 8\n[environment]\nname = "tools"\nform = "python"\n'
        '[environment.agents.adder]\ndescription = "Adds."\ninstructions = "Add."\nmax_tokens = 4\n')
    task = load(tmp_path)
    assert [*PolicyCandidate.of("toy", ToyPolicy.open_for(task), task).team()] == ["main", "adder"]
    assert [row.text for row in _each_agent.tasks(task)["adder"].rows("train")] == ["1 + 2"]
    before = task.hash
    (tmp_path / "inner.py").write_text("def one(text: str) -> str:\n    'Gives one.'\n    return '1'\n")
    with (tmp_path / "task.toml").open("a") as file:
        file.write('file = "inner.py"\n')
    with_tools = load(tmp_path).hash
    (tmp_path / "inner.py").write_text((tmp_path / "inner.py").read_text().replace("'1'", "'2'"))
    assert len({before, with_tools, load(tmp_path).hash}) == 3, "the files of agents are part of the task"
    before = load(tmp_path).hash
    (tmp_path / "task.toml").write_text((tmp_path / "task.toml").read_text().replace('"Add."', '"Sum."'))
    assert load(tmp_path).hash != before


def test_team_sums_can_be_answered_as_its_rows_say() -> None:
    task = tasks.load("team_sums")
    adder = _each_agent.tasks(task)["adder"]
    assert {len(task.rows(split)) for split in ("train", "dev", "test")} == {400, 60, 300}
    assert all(sum(map(int, row.text.split(" + "))) == int(str(row.target)) for row in adder.rows("train"))
    asked = {row.text for row in task.rows("train")} | {row.text for row in task.rows("dev")}
    assert not any(row.text in asked for row in task.rows("test"))

    class Knowing(Scripted):
        async def attempt(self, rows: Sequence[Row], **_: Any) -> list[list[Rollout]]:
            (row,) = rows
            says = str(sum(map(int, row.text.split(" + "))))
            return [[Rollout(row, row.messages, Completion(says, "stop"))]]

    environment = task.environment
    assert environment is not None
    for row in task.rows("test")[:3]:
        calls = [f"adder(question='{call['arguments']['question']}')" for call in row.metadata["calls"]]
        perfect = Scripted((*calls, str(row.target)), {"adder": Knowing()})
        [[rollout]] = asyncio.run(play(perfect, [row], task))
        assert rollout.score and rollout.score.passed and len(rollout.asked) == len(calls)
        assert [asked.answer for asked in rollout.asked] == [call["said"] for call in row.metadata["calls"]]
