"""Compare: every way of teaching one task, one after the other, on the same test rows.

    runs/<id>/config.json  report.json  report.html  candidates/<name>/...

Finished candidates are kept, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.candidates.given import GivenCandidate
from posttrain.candidates.policy import PolicyCandidate
from posttrain.comparison.bench import Bench
from posttrain.comparison.conclude import Record, Settings, conclude, folder_name
from posttrain.comparison.estimate import Forecast, calibrate, forecast
from posttrain.comparison.plan import default_candidates, ordered
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.comparison.stated_costs import refuse_unpriced, refuse_unused
from posttrain.comparison.timetable import REPEATED, Timetable
from posttrain.comparison.wording import complaint, duration, size
from posttrain.evaluation.record import Evaluation
from posttrain.runs import DiskError, Run, read_json, write_json
from posttrain.techniques import _chain as chain
from posttrain.types import LearntNothing, Policy, Task, UserError


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, as it happens: `result` with the seconds that are left, `say` in words."""

    result: Callable[[CandidateResult, float | None], None] = lambda _, __: None
    say: Callable[[str], None] = lambda _: None


async def compare(
    task: Task,
    policies: Mapping[str, Policy],
    run: Run,
    settings: Settings = Settings(),
    *,
    given: Sequence[GivenCandidate] = (),
    listener: Listener = Listener(),
) -> ComparisonResult:
    """Compares every candidate on one task, and writes the report into the run's folder.

    `policies` are base models by name; with none, only floors and the given systems are compared.  Raises UserError.
    """
    comparing = Comparing(task, policies, run, settings, listener)
    started = time.monotonic()
    comparing.refuse_costs(given)
    await comparing.plan()
    await comparing.judge_given(given)
    for number, model in enumerate(comparing.asked):
        if number:
            comparing.timetable.next_model()
        await comparing.one_model(model)
    await comparing.repeat()
    yours = comparing.yours(given)
    earlier = sum(comparing.bench.earlier.values())
    comparing.record.timings["total"] = earlier + time.monotonic() - started
    result = conclude(task, policies, run, settings, comparing.record, yours=yours)
    write(result, run.folder)
    return result


class Comparing:
    """One comparison under way."""

    def __init__(
        self,
        task: Task,
        policies: Mapping[str, Policy],
        run: Run,
        settings: Settings,
        listener: Listener,
    ) -> None:
        self.task, self.policies, self.run, self.settings, self.listener = task, policies, run, settings, listener
        self.record = Record()
        self.bench = Bench(task, run, settings, self.record, self._note)
        self.asked = {model: self._asked(model, first=not i) for i, model in enumerate(policies or [""])}
        self.timetable = Timetable(run, [{} for _ in self.asked])

    def _asked(self, model: str, *, first: bool) -> dict[str, str]:
        """The candidates of a base model, or of an endpoint (which can only be prompted): expressions by name.

        Floors, which need none, are tried once; without a model they are all there is.
        """
        trainable = model in self.policies and not self._remote(model)
        wanted = ordered(list(self.settings.candidates) or default_candidates(self.task, trainable=trainable))
        floors = [expression for expression in wanted if chain.kind(expression) == "floor" and first]
        others = [expression for expression in wanted if chain.kind(expression) != "floor" and model in self.policies]
        if not trainable:
            others = self._only_prompts(others, model)
        several = len(self.policies) > 1
        return {name: name for name in floors} | {f"{name}@{model}" if several else name: name for name in others}

    def _remote(self, model: str) -> bool:
        return getattr(self.policies[model], "remote", False)

    def refuse_costs(self, given: Sequence[GivenCandidate]) -> None:
        """Raises UserError for stated prices and costs that would be ignored or could not be added to anything."""
        prices = self.settings.prices
        hosted = {
            name: chain.kind(expression) != "floor" and self._remote(model)
            for model, asked in self.asked.items()
            for name, expression in asked.items()
        }
        refuse_unused(prices, hosted=any(hosted.values()), here=not all(hosted.values()))
        tokens, hours = prices.input_per_million is not None, prices.per_hour is not None
        priced = {name: tokens if elsewhere else hours for name, elsewhere in hosted.items()}
        refuse_unpriced(self.settings.costs, {**{system.name: True for system in given}, **priced})

    async def one_model(self, model: str) -> None:
        """All candidates on one base model."""
        start = self._start(model) if model in self.policies else None
        for name, expression in self.asked[model].items():
            refusal = "" if self.bench.is_kept(name) else self.timetable.refusal(expression)
            if refusal:
                self._note(f"{name} {refusal}; give more --minutes, or fewer --candidates")
                continue
            await self.one(name, expression, None, start, self.timetable.begin(expression))

    async def judge_given(self, given: Sequence[GivenCandidate]) -> None:
        """The systems that run already."""
        for system in given:
            await self.one(system.name, "given", system, None, None)

    def yours(self, given: Sequence[GivenCandidate]) -> str | None:
        """What everything is compared with where the user runs something already: the first system whose answers are
        given, else an endpoint (but not one on trial) as it is asked with the instructions alone.

        Where that was not asked for, the first prompt that was tried stands for the endpoint, and a note says so.
        """
        if given:
            return given[0].name
        running = [model for model in self.policies if self._remote(model) and model not in self.settings.on_trial]
        judged = {result.name: result for result in self.record.results}
        tried = [judged[name] for model in running for name in self.asked[model] if name in judged]
        tried = [result for result in tried if result.kind == "prompt"]
        plain = [result for result in tried if result.technique == "base"]
        if tried and not plain:
            self._note(f"{tried[0].name} stands for the system you run: base was not compared; add it to --candidates")
        return next((result.name for result in (*plain, *tried)), None)

    async def one(
        self,
        name: str,
        expression: str,
        ready: GivenCandidate | None,
        start: PolicyCandidate | None,
        seconds: float | None,
    ) -> None:
        """Teaches (unless it is `ready`) and judges one candidate, or takes its result from disk."""
        result = self.bench.kept(name, expression)
        if result is None:
            with self.bench.timed(f"{name}: teaching") as clock:
                try:
                    candidate = ready or await self.bench.taught(expression, name, start, seconds)
                except DiskError:
                    raise
                except UserError as error:
                    if expression in self.settings.candidates and not isinstance(error, LearntNothing):
                        raise
                    self._note(f"{name} left out: {complaint(error)}")
                    return
            result = await self.bench.judged(name, expression, candidate, clock.seconds)
        for note in result.notes:
            if result.model and note.startswith(f"{result.model}: ") and note not in self.record.notes:
                self._note(note)  # it is of the model: said once for all its candidates
        self.record.results.append(result)
        self.listener.result(result, self.timetable.seconds_to_come)

    async def repeat(self) -> None:
        """Learning curves of the floors, which cost nothing, and of the best taught candidates, which are also trained
        with two more seeds, while there is time."""
        results = self.record.results
        taught = sorted(
            (result for result in results if result.kind == "weights"), key=lambda result: -(result.dev_score or 0.0)
        )
        floors = [result for result in results if result.kind == "floor" and result.technique != "constant"]
        for result in (*floors, *taught[:REPEATED]):
            if result.learning_curve or result.seed_scores:
                continue
            names = [name for name, policy in self.policies.items() if result.model in (name, policy.model)]
            start = self._start(names[0]) if names else None
            repeated = result if start is None else await self.bench.more_seeds(result, start)
            repeated = await self.bench.learning_curve(repeated, start)
            if result.kind == "weights" and repeated == result:  # training may use all the time, so that it is good
                told = "trained once, and without a learning curve: no time was left; give more --minutes"
                self._note(f"{result.name} was {told}")
            results[results.index(result)] = repeated
            self.bench.keep(repeated)

    def _start(self, model: str) -> PolicyCandidate:
        return PolicyCandidate.of(model, self.policies[model], self.task)

    def _only_prompts(self, expressions: Sequence[str], model: str) -> list[str]:
        """What an endpoint can be asked for.  Raises UserError when none of the models can be what was asked for."""
        refused = [expression for expression in expressions if chain.kind(expression) == "weights"]
        if refused and not all(getattr(policy, "remote", False) for policy in self.policies.values()):
            self._note(f"{', '.join(refused)} left out for {model}: an endpoint can only be prompted")
        elif refused and self.settings.candidates:
            raise UserError(
                f"{', '.join(refused)} would train {model}, which is an endpoint: it can only be prompted",
                place="--candidates",
                remedy="leave it out, or give a local --model",
            )
        return [expression for expression in expressions if expression not in refused]

    async def plan(self) -> None:
        """Calibrates every model, makes the timetable, and says how long all of it will take."""
        self.timetable = Timetable(self.run, [await self._forecasts(model) for model in self.asked])
        estimate, memory = self.timetable.seconds_to_come, self.record.estimate_memory_bytes
        if estimate and memory:
            self.record.estimate_seconds = estimate + sum(self.bench.earlier.values())
            self.listener.say(f"{duration(estimate)}, {size(memory)}; Ctrl-C keeps what is done")

    async def _forecasts(self, model: str) -> dict[str, Forecast]:
        """What each candidate that is not finished will take, by its expression.

        How fast an endpoint is depends on who else asks: for it there is no forecast.
        """
        asked = self.asked[model].items()
        to_do = [expression for name, expression in asked if self.bench.kept(name, expression) is None]
        if all(chain.kind(expression) == "floor" for expression in to_do) or self._remote(model):
            return {}
        self.run.progress("calibrating", 0, 1)
        start = self._start(model)
        with self.bench.timed(f"calibration of {model}"):
            speed = await calibrate(start, self.task)
            latency = self.settings.latency
            forecasts = {name: await forecast(name, start, self.task, speed, latency=latency) for name in to_do}
        self.record.estimate_memory_bytes = max(self.record.estimate_memory_bytes or 0, speed.memory_bytes)
        return forecasts

    def _note(self, text: str) -> None:
        self.record.notes.append(text)
        self.listener.say(text)


def write(comparison: ComparisonResult, folder: Path) -> None:
    """Writes report.json and report.html."""
    from posttrain.comparison import html  # noqa: PLC0415  (the charts' library takes half a second to load)

    write_json(folder / "report.json", comparison.to_report())
    html.render(comparison, [result.evaluation for result in comparison.candidates], folder / "report.html")


def read(folder: Path) -> ComparisonResult:
    """The comparison in a run's folder.  Raises UserError when there is none, or an unfinished one."""
    if not (folder / "report.json").exists():
        raise UserError(
            "this run has no report: it is no comparison, or was stopped before it ended",
            place=str(folder),
            remedy=f"go on with: posttrain compare --resume {folder}",
        )
    report: Any = read_json(folder / "report.json")
    evaluations = [
        Evaluation.read(folder / "candidates" / folder_name(entry["name"]) / "test.jsonl")
        for entry in report["candidates"]
    ]
    return ComparisonResult.from_report(report, evaluations)
