"""compare, show, clean: the main job and its results."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from posttrain import api
from posttrain.api import places
from posttrain.cli import options, show
from posttrain.cli.options import Input, Json, Minutes, Runs, Seed, Target
from posttrain.comparison import compare as comparing
from posttrain.comparison import disagreements, markdown, table, verdict
from posttrain.comparison.compare import Listener
from posttrain.comparison.conclude import Settings
from posttrain.comparison.money import Prices
from posttrain.comparison.results import CandidateResult, ComparisonResult
from posttrain.runs import read_json
from posttrain.types import Task, UserError

DEFAULT_MODEL = "smollm2"


def add(app: typer.Typer) -> None:
    app.command("compare")(compare)
    app.command("show")(show_run)
    app.command("clean")(clean)


def compare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE",
            help="A task folder, a built-in task, or a file of examples (CSV, JSONL, Parquet ...).",
            show_default=False,
        ),
    ] = "",
    candidates: Annotated[
        str, typer.Option(help="What to try, for example base,few_shot,sft+grpo. Default: all that fit the task.")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="smollm2 (embedded), a folder, a hub name, or chat:URL#NAME. Can be repeated."),
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option("--answers", metavar="NAME=FILE", help="Answers of the system you run today, to compare with."),
    ] = None,
    minutes: Minutes = None,
    runs: Runs = places.RUNS,
    seed: Seed = 0,
    as_json: Json = False,
    input: Input = "",
    target: Target = "",
    test: Annotated[Path | None, typer.Option(help="Rows to test on, if they are in a file of their own.")] = None,
    grader: Annotated[str, typer.Option(help="How to judge an answer (guessed if not given).")] = "",
    volume: Annotated[float | None, typer.Option(help="Your requests per month, for what pays.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(help="Price of the device per hour.")] = None,
    price_input: Annotated[float | None, typer.Option(help="Endpoint: price of a million prompt tokens.")] = None,
    price_output: Annotated[float | None, typer.Option(help="Endpoint: price of a million completion tokens.")] = None,
    resume: Annotated[
        str, typer.Option(metavar="RUN", help="Go on with a run that was stopped (latest, an id, a folder).")
    ] = "",
    like: Annotated[
        str, typer.Option(metavar="RUN", help="Repeat a run on another --model: does its winner still win?")
    ] = "",
) -> None:
    """Try every way of teaching a task, and see in one table what each bought and cost.

    Examples:

      posttrain compare tickets.csv --minutes 10

      posttrain compare tickets.csv --answers ours=production.jsonl --volume 20000 --price-per-hour 0.40

      posttrain compare tasks/tickets --candidates base,few_shot,sft --model ./my-model

      posttrain compare --like latest --model chat:http://localhost:8000/v1#gpt-4o-mini
    """
    earlier = read_json(places.find_run(resume or like, runs) / "config.json") if resume or like else {}
    source = source or earlier.get("task_source", "")
    if not source:
        raise UserError("nothing to compare", place="TASK|FILE", remedy="for example: posttrain compare tickets.csv")
    task = places.load_task(source, input=input, target=options.names(target), test=test, grader=grader, seed=seed)
    stated = earlier.get("settings", {})
    prices = Prices(**stated.get("prices", {}))
    given = {"per_hour": price_per_hour, "input_per_million": price_input, "output_per_million": price_output}
    prices = replace(prices, **{name: price for name, price in given.items() if price is not None})  # type: ignore[arg-type]
    settings = Settings(prices=prices, volume_per_month=stated.get("volume_per_month") if volume is None else volume)
    chosen = options.names(candidates) or earlier.get("candidates", [])
    if like and not chosen:
        chosen = [
            result.technique
            for result in comparing.read(places.find_run(like, runs)).candidates
            if result.kind != "given"
        ]
    if like and not model:
        raise UserError(
            "another model has to be named", place="--like", remedy="add --model: a folder, a hub name, chat:URL#NAME"
        )
    models = model or earlier.get("models", []) or [DEFAULT_MODEL]
    if not as_json:
        _introduce(task)
    with show.progress(quiet=as_json) as shown:
        result = api.compare(
            task,
            candidates=chosen,
            models=models,
            minutes=minutes if minutes is not None else earlier.get("minutes"),
            answers=options.pairs(answers or [], "--answers") or earlier.get("answers", {}),
            runs=runs,
            seed=seed or earlier.get("seed", 0),
            settings=settings,
            resume=places.find_run(resume, runs) if resume else None,
            listener=Listener() if as_json else _listener(),
            on_progress=shown,
        )
    if as_json:
        options.print_json(result.to_report())
    else:
        _conclude(result, task, Path(result.run), source)
        if like:
            show.console.print(_still_wins(comparing.read(places.find_run(like, runs)), result), markup=False)


def _introduce(task: Task) -> None:
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in task.splits.items() if rows)
    documents = f", {len(task.documents)} documents" if task.documents else ""
    show.console.print(f"[bold]{escape(task.name)}[/] version {escape(task.version)}: {counts} rows{documents}")
    for note in task.notes:
        show.console.print(
            textwrap.fill(note, show.width(), initial_indent="  ", subsequent_indent="    "), style="dim", markup=False
        )


def _listener() -> Listener:
    width = show.width()
    headings = iter([table.header(width)])

    def result(finished: CandidateResult, left: float | None) -> None:
        for heading in headings:  # once, before the first row
            show.console.print(heading)
        show.console.print(table.row(finished, seconds_left=left, width=width))

    return Listener(result, lambda text: show.console.print(text, style="cyan", markup=False))


def _conclude(result: ComparisonResult, task: Task, folder: Path, source: str) -> None:
    width = show.width()
    show.console.print()
    show.console.print(table.final(result, width=width), width=width)
    for sentence in result.recommendation.sentences:
        show.console.print(sentence, style="bold", markup=False)
    n = len(task.rows("test"))
    show.console.print(f"{verdict.detectable_sentence(result.detectable_difference, n)}\n", style="dim")
    _differences(result)
    for line in result.notes[len(task.notes) :]:
        show.console.print(line, style="dim", markup=False)
    show.console.print(f"report: [bold]{escape(str(folder / 'report.html'))}[/]   took {_took(result)}\n")
    show.console.print("next:")
    for command in verdict.next_commands(result.recommendation, source, "latest"):
        show.console.print(f"  {command}", markup=False)


def _took(result: ComparisonResult) -> str:
    def clock(seconds: float | None) -> str:
        return f"{(seconds or 0) / 60:.1f} min"

    guess = f" (estimate {clock(result.estimate_seconds)})" if result.estimate_seconds else ""
    return clock(result.actual_seconds) + guess


def _differences(result: ComparisonResult) -> None:
    """Three rows where the best prompt and the best taught candidate differ."""
    judged = [each for each in result.candidates if each.dev_score is not None]
    prompted = max(
        (each for each in judged if each.kind == "prompt"), key=lambda each: each.dev_score or 0, default=None
    )
    taught = max(
        (each for each in judged if each.kind == "weights"), key=lambda each: each.dev_score or 0, default=None
    )
    if prompted is None or taught is None:
        return
    for row in disagreements.differing_rows(prompted.evaluation, taught.evaluation, n=3, seed=result.seed):
        show.console.print(textwrap.shorten(row.text, 200), style="italic", markup=False)
        for name, answer, right in (
            (prompted.name, row.first_answer, row.first_passed),
            (taught.name, row.second_answer, not row.first_passed),
        ):
            mark = "[green]✓[/]" if right else "[red]✗[/]"
            show.console.print(f"  {mark} {escape(f'{name:<22}')} ", end="")
            show.console.print(textwrap.shorten(answer, 120), markup=False)
        show.console.print(f"    {'wanted':<22} ", end="", style="dim")
        show.console.print(f"{row.target}\n", markup=False, style="dim")


def _still_wins(old: ComparisonResult, new: ComparisonResult) -> str:
    before = old.candidate(old.recommendation.candidate)
    again = next((each for each in new.candidates if each.technique == before.technique), None)
    if again is None:
        return f"The old winner, {before.name}, could not be tried on {new.model}."
    verdict_word = (
        "still wins"
        if new.recommendation.candidate == again.name
        else f"no longer wins: {new.recommendation.candidate} does"
    )
    return (
        f"The old winner on {old.model}, {before.name} ({before.score:.0%}), {verdict_word} on {new.model} "
        f"({again.score:.0%})."
    )


def show_run(
    run: Annotated[str, typer.Argument(help="latest, a run's id, or its folder.")] = places.LATEST,
    everything: Annotated[bool, typer.Option("--all", help="Also tokens, training, seeds, parts and slices.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a short table, the verdict and the run, to paste into a README.")
    ] = False,
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Show a finished comparison again.

    Examples:

      posttrain show latest --all

      posttrain show latest --markdown
    """
    options.refuse_together({"--all": everything, "--markdown": as_markdown, "--json": as_json})
    folder = places.find_run(run, runs)
    result = comparing.read(folder)
    if as_json:
        options.print_json(result.to_report())
        return
    if as_markdown:
        print(markdown.document(result, read_json(folder / "config.json")))
        return
    show.console.print(table.final(result, width=show.width()), width=show.width())
    for sentence in result.recommendation.sentences:
        show.console.print(sentence, style="bold", markup=False)
    if everything:
        show.console.print(table.everything(result), width=show.width())
    show.console.print(f"report: {folder / 'report.html'}", markup=False)


def clean(
    keep: Annotated[int, typer.Option(help="How many of the newest runs to keep.", min=0)] = 5,
    runs: Runs = places.RUNS,
    as_json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove old runs and say what was freed.

    Example: posttrain clean --keep 3
    """
    folders = sorted((path.parent for path in runs.glob("*/config.json")), key=lambda folder: folder.name)
    old = folders[:-keep] if keep else folders
    size = sum(file.stat().st_size for folder in old for file in folder.rglob("*") if file.is_file())
    if old and not yes and not as_json:
        typer.confirm(f"Remove {len(old)} of {len(folders)} runs in {runs} ({size / 1e6:.0f} MB)?", abort=True)
    for folder in old:
        shutil.rmtree(folder)
    if as_json:
        options.print_json({"removed": [str(folder) for folder in old], "bytes": size})
    else:
        show.console.print(f"removed {len(old)} runs, {size / 1e6:.0f} MB; kept {len(folders) - len(old)}")
