"""How a comparison is told on the terminal, in the order in which it matters.

what was guessed or found · the estimate · floors, then a row as each candidate finishes · the verdict · what these rows
cannot tell · three rows to read · what to do next
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from rich.markup import escape

from posttrain.api import places
from posttrain.api.comparing import Question
from posttrain.api.engines import is_endpoint
from posttrain.cli import show
from posttrain.cli.voice import Voice
from posttrain.comparison import disagreements, table, verdict, wording
from posttrain.comparison.compare import Listener
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.types import Output, Task

ROWS_SHOWN = 3


def introduce(asked: Question, voice: Voice) -> None:
    """What the task is, what was guessed of it, and what no comparison can estimate for itself."""
    task = asked.task
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in task.splits.items() if rows)
    documents = f", {len(task.documents)} documents" if task.documents else ""
    voice.say(f"[bold]{escape(task.name)}[/] version {escape(task.version)}: {counts} rows{documents}")
    compared = ", the mean grade is compared" if task.scored_by == "grade" else ""
    models = "none" if asked.only_floors else ", ".join(asked.models)
    form = f"answer: {_form(task.output)}; grader: {_grader(task)}{compared}"
    for note in (f"model: {models}", form, *task.notes):
        filled = textwrap.fill(note, show.width(), initial_indent="  ", subsequent_indent="    ")
        voice.say(filled, style="dim", markup=False)
    if asked.only_floors:
        voice.say("some seconds: floors need no model", style="cyan")
    for model in () if asked.only_floors else filter(is_endpoint, asked.models):
        told = f"no estimate: how fast {model} answers depends on who else asks; Ctrl-C keeps what is done"
        voice.say(told, style="cyan", markup=False)


def _form(output: Output) -> str:
    if output.labels:
        named = ", ".join(output.labels[:6]) + (" ..." if len(output.labels) > 6 else "")
        return f"one of {len(output.labels)} labels ({named})"
    if output.schema is not None:
        return f"a record of {', '.join(output.schema.get('properties', {})) or 'any fields'}"
    return f"text of at most {output.max_tokens} tokens"


def _grader(task: Task) -> str:
    return type(task.grader).__module__.rpartition(".")[2]  # a name is a file


def listener(voice: Voice) -> Listener:
    """Says the estimate, and a row as each candidate finishes."""
    width = show.width()
    finished_before: list[str] = []

    def result(finished: CandidateResult, left: float | None) -> None:
        if not finished_before:
            voice.say(table.header(finished.evaluation.scored_by, width))
        finished_before.append(finished.name)
        voice.say(table.row(finished, seconds_left=left, width=width))

    return Listener(result, lambda text: voice.say(text, style="cyan", markup=False))


def conclude(result: ComparisonResult, task: Task, voice: Voice) -> None:
    """The table, the verdict and what follows from it."""
    width = show.width()
    voice.say()
    voice.say(table.final(result, width=width), width=width)
    for sentence in result.recommendation.sentences:
        voice.say(sentence, style="bold", markup=False)
    voice.say(verdict.detectable_sentence(result.detectable_difference, len(task.rows("test"))), style="dim")
    voice.say()
    _differences(result, voice)
    for line in result.notes[len(task.notes) :]:
        voice.say(line, style="dim", markup=False)
    voice.say(f"report: [bold]{escape(result.run)}/report.html[/]   took {_took(result)}\n", soft_wrap=True)
    voice.say("next:")
    run = places.LATEST if places.all_runs()[-1:] == [Path(result.run)] else result.run
    given = result.candidate(result.recommendation.candidate).kind == "given"
    instead = places.answering(result, run) if given else ""
    for command in verdict.next_commands(result.recommendation, str(task.folder or task.name), run, instead=instead):
        voice.say(f"  {command}", markup=False, soft_wrap=True)


def _took(result: ComparisonResult) -> str:
    def clock(seconds: float | None, memory_bytes: int | None) -> str:
        memory = f", {wording.size(memory_bytes)}" if memory_bytes else ""
        return f"{(seconds or 0) / 60:.1f} min{memory}"

    truth = clock(result.actual_seconds, result.actual_memory_bytes)
    if not result.estimate_seconds:
        return truth
    return f"{truth} (estimate {clock(result.estimate_seconds, result.estimate_memory_bytes)})"


def _differences(result: ComparisonResult, voice: Voice) -> None:
    """Three rows on which one of the best prompt and the best taught candidate does better than the other."""
    couple = contrasted(result)
    if couple is None:
        return
    one, other = couple
    rows = disagreements.differing_rows(one.evaluation, other.evaluation, n=ROWS_SHOWN, seed=result.seed)
    if not rows:
        voice.say(f"{one.name} and {other.name} do equally well on every row.\n", style="dim", markup=False)
    for row in rows:
        voice.say(textwrap.shorten(row.text, 200), style="italic", markup=False)
        for name, answer, outcome in (
            (one.name, row.first_answer, row.first_outcome),
            (other.name, row.second_answer, row.second_outcome),
        ):
            mark = f"{outcome:.2f}" if result.scored_by == "grade" else "[green]✓[/]" if outcome else "[red]✗[/]"
            voice.say(f"  {mark} {escape(f'{name:<22} {textwrap.shorten(answer, 120)}')}")
        indent = " " * (7 if result.scored_by == "grade" else 4)
        wanted = "" if row.target is None else f"{indent}{'wanted':<22} {row.target}\n"
        voice.say(wanted, markup=False, style="dim")


def contrasted(result: ComparisonResult) -> tuple[CandidateResult, CandidateResult] | None:
    """The best prompt and the best taught candidate, or the two best where nothing was prompted or taught, by dev."""
    judged = sorted(
        (each for each in result.candidates if each.dev_score is not None), key=lambda each: -(each.dev_score or 0.0)
    )
    prompted = next((each for each in judged if each.kind == "prompt"), None)
    taught = next((each for each in judged if each.kind == "weights"), None)
    if prompted is not None and taught is not None:
        return prompted, taught
    return (judged[0], judged[1]) if len(judged) > 1 else None
