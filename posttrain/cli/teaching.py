"""teach, evaluate: one technique, one score."""

from __future__ import annotations

import ast
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from posttrain import api
from posttrain.api import places
from posttrain.api import teaching as verbs
from posttrain.cli import documents, options, show
from posttrain.cli.options import InPrecision, Json, Minutes, Runs, Seed
from posttrain.cli.stopping import at_the_next_step
from posttrain.cli.voice import Voice
from posttrain.comparison import wording
from posttrain.evaluation.record import Evaluation
from posttrain.types import Split, UserError


def add(app: typer.Typer) -> None:
    app.command("teach")(teach)
    app.command("evaluate")(evaluate)
    app.command("train", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        train
    )


def teach(
    technique: Annotated[
        str, typer.Argument(help="A technique or a chain: sft, grpo, retrieval+sft, sft+grpo ...")
    ] = "",
    source: Annotated[str, typer.Argument(metavar="TASK|FILE")] = "",
    model: Annotated[str, typer.Option(help="smollm2 (embedded), a folder, a hub name.")] = "smollm2",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the last technique, for example learning_rate=3e-4."
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B,C", help="Try several values side by side, and keep the best."),
    ] = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many optimiser steps.", min=1)] = None,
    runs: Runs = places.RUNS,
    seed: Seed = 0,
    resume: Annotated[
        str, typer.Option(metavar="RUN", help="Go on with a run that was killed (latest, an id, a folder).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Teach one technique and keep the result as a run.

    Examples:

      posttrain teach sft tickets.csv

      posttrain teach grpo arithmetic --minutes 3

      posttrain teach sft+grpo tasks/tickets --set steps=40

      posttrain teach sft tickets.csv --sweep learning_rate=3e-4,1e-3,3e-3

      posttrain teach --resume latest
    """
    _refuse_half_a_question(technique, source, resume)
    voice = Voice(quiet=as_json)
    stopped = "Nothing was learnt by then; its log is in {run}."
    with voice.until_the_end(stopped), show.progress(quiet=as_json) as shown, at_the_next_step() as stop:
        if resume:
            lesson = verbs.go_on(resume, runs=runs, on_progress=voice.hearing(shown), began=voice.begin, stop=stop)
        else:
            lesson = api.teach(
                technique,
                source,
                model=model,
                minutes=minutes,
                steps=steps,
                runs=runs,
                seed=seed,
                settings=_settings(settings or [], sweep or []),
                on_progress=voice.hearing(shown),
                began=voice.begin,
                stop=stop,
            )
    if stop.asked:
        voice.say("[yellow]Stopped[/]; what was best by then is kept.")
    voice.say(f"dev, {_scale(lesson.after)}: {_score(lesson.before)} before, [bold]{_score(lesson.after)}[/] after")
    difference = lesson.after.against(lesson.before)
    voice.say(
        f"difference {wording.signed(difference.value)} points (95 %: {wording.signed_span(difference.interval)}, "
        f"paired, p = {difference.p_value:.2g}); took {wording.duration(lesson.seconds)}"
    )
    for note in lesson.notes:
        voice.say(note, markup=False, soft_wrap=True)
    evaluate_it = f"posttrain evaluate latest {source or lesson.source}"
    voice.say(
        f"run: {lesson.folder}\n\nnext:\n  posttrain chat latest\n  {evaluate_it}\n  posttrain serve latest",
        markup=False,
        soft_wrap=True,
    )
    if as_json:
        documents.print_document(
            {
                "run": str(lesson.folder),
                "technique": lesson.technique,
                "split": "dev",
                "scored_by": lesson.after.scored_by,
                "before": lesson.before.score,
                "after": lesson.after.score,
                "difference": asdict(lesson.after.against(lesson.before)),
                "seconds": lesson.seconds,
                "n": lesson.after.n,
                "notes": list(lesson.notes),
            }
        )


def _settings(once: list[str], swept: list[str]) -> dict[str, object]:
    found: dict[str, object] = {name: _value(text) for name, text in options.pairs(once, "--set").items()}
    for name, text in options.pairs(swept, "--sweep").items():
        if name in found:
            raise UserError(f"{name} is both set and swept", place="--sweep", remedy="give it once")
        found[name] = verbs.Several(map(_value, text.split(",")))
    return found


def _refuse_half_a_question(technique: str, source: str, resume: str) -> None:
    if resume and (technique or source):
        raise UserError(
            "a run goes on as it was begun: its technique and its task are known",
            place="--resume",
            remedy=f"give it alone: posttrain teach --resume {resume}",
        )
    if not resume and not (technique and source):
        raise UserError(
            "say what to teach, and which task",
            place="posttrain teach",
            remedy="for example: posttrain teach sft tickets.csv (posttrain teach --help has more)",
        )


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def evaluate(
    place: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="latest, a run, RUN/CANDIDATE, or a model.")],
    source: Annotated[str, typer.Argument(metavar="TASK|FILE")],
    split: Annotated[Split, typer.Option(help="Which rows; looks at test are counted.")] = "dev",
    precision: InPrecision = None,
    runs: Runs = places.RUNS,
    as_json: Json = False,
) -> None:
    """Judge a run's winner, or a bare model, on a task.

    Example: posttrain evaluate latest tasks/tickets --split test
    """
    with show.progress(quiet=as_json) as shown:
        judged = verbs.judge(place, source, split=split, precision=precision, runs=runs, on_progress=shown)
    evaluation = judged.evaluation
    if as_json:
        documents.print_document(
            {
                "run": str(judged.folder),
                "candidate": evaluation.candidate,
                "split": split,
                "scored_by": evaluation.scored_by,
                "score": evaluation.score,
                "interval": evaluation.interval,
                "n": evaluation.n,
                "valid_rate": evaluation.valid_rate,
                "error_rate": evaluation.error_rate,
                "parts": evaluation.parts(),
                "test_uses": judged.test_uses,
                "suspicions": judged.suspicions,
                "notes": judged.notes,
            }
        )
        return
    named = escape(f"{evaluation.candidate} on {evaluation.task}")
    valid = wording.percent(evaluation.valid_rate)
    show.console.print(f"{named}, {split}: [bold]{_score(evaluation)}[/] {_scale(evaluation)}; valid {valid}")
    for name, value in evaluation.parts().items():
        show.console.print(f"  {name:<20} {value:.0%}", markup=False)
    for told in judged.notes:
        show.console.print(told, markup=False)
    for told in judged.suspicions:
        show.console.print(f"look: {told}", markup=False)
    if judged.test_uses is not None:
        show.console.print(f"these test rows have been used {wording.uses(judged.test_uses)}", style="dim")


def _scale(evaluation: Evaluation) -> str:
    return "rows right" if evaluation.scored_by == "right" else "mean grade"


def _score(evaluation: Evaluation) -> str:
    return f"{evaluation.score:.0%} ({wording.span(evaluation.interval)} %, n={evaluation.n})"


def train() -> None:
    """There is no `train`: it is called teach."""
    raise UserError("there is no command train", place="posttrain train", remedy="use teach: posttrain teach sft TASK")
