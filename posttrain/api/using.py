"""predict, chat, export: what a winner is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain import tasks
from posttrain.api import places
from posttrain.api.engines import opened
from posttrain.api.loops import run_to_end
from posttrain.api.sources import load_task
from posttrain.candidates.policy import AGENTS, PolicyCandidate
from posttrain.discovery import find, names
from posttrain.environments._agents import MAIN
from posttrain.rollouts import taught
from posttrain.runs import Progress, read_json, silent
from posttrain.techniques import _each_agent
from posttrain.types import Candidate, Datum, Message, Rollout, Row, Task, UserError


@dataclass(frozen=True)
class Prediction:
    """An answer to an unlabelled row.  `abstained`: its confidence is below the threshold, or there is an error."""

    id: str
    answer: str
    confidence: float | None
    abstained: bool
    error: str = ""


def predict(
    place: str,
    rows: str | Path | Sequence[str],
    *,
    threshold: float = 0.0,
    input: str = "",
    runs: Path = places.RUNS,
    on_progress: Callable[[Progress], None] = silent,
    on_predictions: Callable[[Sequence[Prediction]], None] = lambda _: None,
) -> list[Prediction]:
    """Answers a file of unlabelled rows (or a list of texts), abstaining below a confidence.

    `on_predictions` is called with some rows at a time, as soon as they are answered.  Raises UserError, also when
    there is a threshold and the candidate knows no confidence.
    """
    if isinstance(rows, str | Path):
        asked = tasks.read_rows(rows, input=input)
    else:
        asked = tuple(Row(str(i), (Message("user", text),)) for i, text in enumerate(rows))
    predictions: list[Prediction] = []

    async def work(candidate: Candidate) -> None:
        for start in range(0, len(asked), 64):
            on_progress(Progress("answering", start, len(asked)))
            groups = await candidate.attempt(asked[start : start + 64])
            answered = [_prediction(rollout, threshold, candidate.name) for (rollout,) in groups]
            on_predictions(answered)
            predictions.extend(answered)

    with opened() as engines:
        run_to_end(work(places.load_candidate(place, engines, runs)))
    return predictions


def _prediction(rollout: Rollout, threshold: float, candidate: str) -> Prediction:
    confidence = rollout.completion.confidence if rollout.completion else None
    if threshold and confidence is None and not rollout.error:
        raise UserError(
            f"{candidate} knows no confidence, so nothing can be below {threshold:g}",
            place="--threshold",
            remedy="leave it out, or predict with linear or a local model",
        )
    unsure = bool(rollout.error) or (confidence is not None and confidence < threshold)
    return Prediction(rollout.row.id, rollout.answer, confidence, unsure, rollout.error)


@dataclass(frozen=True)
class Reply:
    """One turn of a conversation.  `error` says why there is no answer."""

    asked: str
    answer: str
    confidence: float | None
    error: str = ""


class Conversation:
    """Questions to one candidate, each with those before it, where the candidate can make use of them."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.history: tuple[Message, ...] = ()
        self.keeps_history = candidate.kind != "floor" and not getattr(candidate, "demonstrations", ())

    def ask(self, text: str, on_text: Callable[[str], None] = lambda _: None) -> Reply:
        """The reply to a question, also told to `on_text` piece by piece as it is written."""
        row = Row("chat", (*self.history, Message("user", text)))
        work = self.candidate.attempt([row], on_text=lambda _, __, piece: on_text(piece))
        [[rollout]] = run_to_end(work)
        if self.keeps_history and not rollout.error:
            self.history = (*row.messages, replace(Message("assistant", rollout.answer), weight=0.0))
        confidence = rollout.completion.confidence if rollout.completion else None
        return Reply(text, rollout.answer, confidence, rollout.error)


@contextmanager
def conversation(place: str = places.LATEST, *, runs: Path = places.RUNS) -> Iterator[Conversation]:
    """A conversation with a run's winner, a saved candidate or a bare model.  Raises UserError."""
    with opened() as engines:
        yield Conversation(places.load_candidate(place, engines, runs))


def chat(place: str, messages: str | Iterable[str], *, runs: Path = places.RUNS) -> list[Reply]:
    """Says one message or several, one after the other, to a run's winner, a saved candidate or a bare model.

    Raises UserError.
    """
    with conversation(place, runs=runs) as talk:
        return [talk.ask(text) for text in ([messages] if isinstance(messages, str) else messages)]


def export(place: str, to: str, folder: str | Path, *, runs: Path = places.RUNS) -> Any:
    """Writes a trained candidate in a format others read (`peft`, `merged`), proven equal; or a task (`verifiers`,
    `openai`, `inspect`) with its grader, and gives notes in words.  Agents that were trained with a candidate go to
    agents/NAME in the folder.  Raises UserError."""
    if to in names("tasks.exported"):
        return _export_task(place, to, Path(folder))
    exporter = find("exports", to)
    saved = places.find_saved(place, runs)
    if saved is None:
        raise places.no_run(place, runs)
    task = tasks.load(read_json(places.run_of(saved) / "config.json")["task_source"])
    with opened(precision="float32") as engines:  # the proof is against plain fp32
        candidate = places.load_candidate(place, engines, runs)
        team = candidate.team() if isinstance(candidate, PolicyCandidate) else {}
        trained = {name: member for name, member in team.items() if member.kind == "weights"}
        if not trained:
            raise UserError(
                f"{candidate.name} has no trained weights to export",
                place=place,
                remedy="export what sft, dpo or grpo made: posttrain export RUN/NAME; a prompt is in candidate.json",
            )
        asked, whole = _each_agent.tasks(task), Path(folder)
        places_of = {name: whole if name == MAIN else whole / AGENTS / name for name in trained}
        found = [
            _exported(exporter, member, asked.get(name, task), places_of[name]) for name, member in trained.items()
        ]
        return found[0]


def _exported(exporter: Any, candidate: PolicyCandidate, task: Task, folder: Path) -> Any:
    rows = (task.splits.get("dev") or task.rows("train"))[:8]
    probes = run_to_end(_probes(candidate, rows))
    return run_to_end(exporter.export(candidate, folder, probes, [candidate.prompt(row) for row in rows[:4]]))


def _export_task(place: str, to: str, folder: Path) -> list[str]:
    task = load_task(place)
    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", place=str(folder), remedy="name a new one with --output")
    notes: list[str] = find("tasks.exported", to).write(task, folder)
    return notes


async def _probes(candidate: PolicyCandidate, rows: Sequence[Row]) -> list[Datum]:
    """What an export is compared on: rows with the answers wanted, or the candidate's own where none is known."""
    unlabelled = [row for row in rows if row.target is None]
    groups = await candidate.attempt(unlabelled) if unlabelled else []
    own = {rollout.row.id: rollout.answer for (rollout,) in groups if rollout.answer}
    return [taught(candidate, row, own.get(row.id)) for row in rows if row.target is not None or row.id in own]
