"""sft: supervised fine-tuning of a LoRA adapter on the task's own answers, as the candidate will be asked.

Every assistant message is learnt by its weight, the stop token included; the prompt never is.  After each epoch the
adapter answers dev rows, and that of the best answers is kept (early stopping).  Answers and not the loss decide: the
loss soon rises again, for it punishes certainty, while the answers still get better.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from posttrain.candidates.policy import PolicyCandidate
from posttrain.evaluation.drawing import drawn
from posttrain.evaluation.evaluate import quick_score
from posttrain.rollouts import among, by_field, taught, worked
from posttrain.runs import Run
from posttrain.techniques._adapter import dropped_on_failure, trainable
from posttrain.techniques._checkpoint import Checkpoints
from posttrain.techniques._optimiser import Stepping
from posttrain.techniques._team import Team
from posttrain.techniques._work import Work
from posttrain.types import Datum, Kind, LearntNothing, LoRA, Output, Row, Task, UserError

KIND: Kind = "weights"
LABEL = "fine-tuned on the answers"

EACH_AGENT = True
"""Agents are taught one by one, from what they were asked in rows to learn from."""

UPPER_HALF = LoRA(layers=0.5)

JUDGED_ROWS = 64
"""So many dev rows are answered after each epoch; of training rows, when a task has no others."""

LOSS_ROWS = 16
"""Of the judged rows, those whose loss is computed: it says that something is learnt, and which of two equals is
better, and reading all rows once more would take half as long as answering them."""

CHECKPOINT_STEPS = 50
"""A checkpoint is written after so many steps, and after each epoch."""

ANSWERS_COST = 3
"""Answering a row takes about so many times as long as computing its loss."""


@dataclass(frozen=True)
class Config(Stepping):
    """Defaults vetted on support_triage and BANKING77 with SmolLM2-135M (docs/notes).

    `batch_size` 0 takes a hundredth of the rows, from 2 to 16: with few rows the number of steps is what counts.
    `brief` puts a line in the place of the instructions where the answer has a closed form: the weights learn the rest,
    and a shorter prompt is cheaper to train and to serve.  The adapter acts on the upper half of the layers: as good
    here as on all of them, in half the time.  Training stops after `patience` epochs without better answers.
    `among_labels` learns to choose among a task's labels and not to write them: cheaper, but who asks the weights
    without the task's constraint gets no labels.
    """

    epochs: int = 6
    batch_size: int = 0
    warmup: float = 0.05  # share of all steps
    lora: LoRA | None = None  # None: that of the adapter there is, else UPPER_HALF
    brief: bool = True
    among_labels: bool = False
    patience: int = 2


def work(task: Task, config: Config = Config()) -> Work:
    """What `teach` will do.  The loss of a row costs a third of training on it."""
    judged = len(judged_rows(task))
    scored = min(judged, LOSS_ROWS) // 3
    return Work(rows_answered=config.epochs * judged, rows_trained=config.epochs * (len(task.rows("train")) + scored))


def shape(candidate: PolicyCandidate, task: Task, config: Config = Config()) -> PolicyCandidate:
    """The candidate as it is trained: with brief instructions, unless they are to stay."""
    instructions = brief(task.output) if config.brief else ""
    return replace(candidate, instructions=instructions or candidate.instructions)


async def teach(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> PolicyCandidate:
    """The candidate with a trained adapter.  Raises UserError when nothing could be, or was, learnt."""
    training = start(candidate, await worked(task), run, config)
    with dropped_on_failure(training.policy):
        await training.begin()
        while await training.round():
            pass
        return await training.finish()


def start(candidate: PolicyCandidate, task: Task, run: Run, config: Config = Config()) -> Training:
    """A training of the candidate, to be taken epoch by epoch."""
    candidate = shape(candidate, task, config)
    data = lessons(candidate, task.rows("train"), task, config)
    fresh = UPPER_HALF if candidate.kind != "weights" else None
    policy = trainable(candidate, "sft", config.lora or fresh, run)
    return Training(replace(candidate, policy=policy, kind="weights"), data, task, run, config)


def judged_rows(task: Task) -> tuple[Row, ...]:
    """The rows whose answers say when to stop.  Training rows cannot tell that, but that nothing was learnt."""
    dev = tuple(row for row in task.splits.get("dev", ()) if row.target is not None)
    return drawn(dev or task.rows("train"), JUDGED_ROWS)


def brief(output: Output) -> str:
    """A line that says what form the answer has; "" for free text, whose instructions say more than a form."""
    if output.labels:
        return "Answer with a label."
    return f"Answer with JSON: {', '.join(output.schema.get('properties', {}))}." if output.schema else ""


def lessons(candidate: PolicyCandidate, rows: Sequence[Row], task: Task, config: Config) -> list[Datum]:
    """What rows teach.  Raises UserError when labels are to be told apart and there are none."""
    data = [lesson(candidate, row) for row in rows]
    if not config.among_labels:
        return data
    if len(task.output.labels) < 2:
        raise UserError(
            f"the answers of {task.name} are no labels to choose from",
            place="sft: among_labels",
            remedy="leave among_labels out",
        )
    before = len(candidate.policy.renderer.prompt(candidate.messages(rows[0]), candidate.tools_for(rows[0])))
    answers = [taught(candidate, rows[0], label).tokens[before:] for label in task.output.labels]
    return [among(datum, answers) for datum in data]


def lesson(candidate: PolicyCandidate, row: Row) -> Datum:
    """What one row teaches; a record's fields weigh the same."""
    return by_field(taught(candidate, row), row.target or "", candidate.policy.renderer.decode)


@dataclass(frozen=True, order=True)
class Judgement:
    """How good the adapter is on the judged rows; the greater the better, the loss deciding between equals."""

    value: float  # mean credit, parts counted: few rows tell more that way than by how many are wholly right
    minus_loss: float


@dataclass
class Seen:
    """What the loop has seen so far: with a checkpoint's weights, all that it needs to go on."""

    before: float  # the loss on the judged rows
    judging_seconds: float
    epoch: int = 1  # the one at hand
    batches: int = 0  # of it, those learnt from
    step: int = 0
    trained_tokens: int = 0
    tokens: int = 0
    forwarded_tokens: int = 0
    lowest: float | None = None  # of the losses after an epoch
    best: tuple[float, float] | None = None  # a Judgement
    best_epoch: int = 0


class Training:
    """The loop."""

    seen: Seen

    def __init__(self, learner: PolicyCandidate, data: list[Datum], task: Task, run: Run, config: Config) -> None:
        self.learner, self.policy, self.data, self.run, self.config = learner, learner.policy, data, run, config
        self.task, self.judged = task, judged_rows(task)
        self.lessons = lessons(learner, drawn(self.judged, LOSS_ROWS), task, config)
        self.batch_size = config.batch_size or min(16, max(2, len(data) // 100))
        self.steps_per_epoch = math.ceil(len(data) / self.batch_size)
        self.checkpoints = Checkpoints(run, Team.of(learner))

    async def begin(self, beside: Sequence[Training] = ()) -> None:
        """Goes on from the newest checkpoint, or looks at what is to be learnt; unless one of those `beside`, whose
        adapters began as this one, has looked at the same."""
        if kept := await self.checkpoints.restore():
            self.seen = Seen(**kept)
            return
        alike = next((other.seen for other in beside if other.lessons == self.lessons), None)
        self.seen = Seen(alike.before, alike.judging_seconds) if alike else await self.look_first()
        self.run.log(epoch=0, step=0, judged_loss=self.seen.before)

    async def round(self) -> bool:
        """An epoch, then a judgement; False when the epochs, the patience or the budget are used up."""
        finished = self._may_get_better() and await self.one_epoch()
        if self.seen.batches:
            await self.judge()
        return finished and self._may_get_better()

    async def finish(self) -> PolicyCandidate:
        """The candidate with the adapter of the best epoch.  Raises UserError when nothing was learnt."""
        self._refuse_if_nothing_was_learnt()
        await self.policy.load(self.run.folder / "best")
        return replace(self.learner, details={**self.learner.details, "training": self.summary()})

    @property
    def rounds(self) -> int:
        """Epochs that are done and judged."""
        return self.seen.epoch - 1

    @property
    def standing(self) -> Judgement | None:
        """How good the best epoch was."""
        return Judgement(*self.seen.best) if self.seen.best else None

    @property
    def trained_tokens(self) -> int:
        return self.seen.trained_tokens

    def _may_get_better(self) -> bool:
        seen, config = self.seen, self.config
        return seen.epoch <= config.epochs and (seen.best is None or seen.epoch - seen.best_epoch <= config.patience)

    def _refuse_if_nothing_was_learnt(self) -> None:
        before, lowest = self.seen.before, self.seen.lowest
        if lowest is None:
            raise UserError(
                "the budget was used up before the first step of sft",
                place=str(self.run.folder),
                remedy="give more --minutes or --steps",
            )
        if not lowest < before:
            raise LearntNothing(
                f"sft learnt nothing: the loss on held-out rows went from {before:.3f} to {lowest:.3f}",
                place=str(self.run.folder),
                remedy="check the labels with `posttrain check`, or use a smaller learning rate",
            )

    async def look_first(self) -> Seen:
        """The loss before anything is learnt, and about how long judging will take."""
        started = self.run.seconds
        before = await self.loss()
        return Seen(before, self._judging_seconds(self.run.seconds - started))

    def _judging_seconds(self, loss_seconds: float) -> float:
        """How long judging takes, by how long the loss does."""
        return loss_seconds * (1 + ANSWERS_COST * len(self.judged) / len(self.lessons))

    async def one_epoch(self) -> bool:
        """What is left of a pass over the rows, each in an order of its own; False when the budget ended it early."""
        seen, total = self.seen, self.config.epochs * self.steps_per_epoch
        order = random.Random(f"{self.run.seed}:{seen.epoch}").sample(self.data, len(self.data))
        for start in range(seen.batches * self.batch_size, len(order), self.batch_size):
            if self._must_stop():
                return False
            loss = await self.one_step(order[start : start + self.batch_size], total)
            self.run.progress(f"sft: epoch {seen.epoch} of {self.config.epochs}", seen.step, total, f"loss {loss:.3f}")
            if seen.step % CHECKPOINT_STEPS == 0 and seen.batches < self.steps_per_epoch:
                await self.checkpoints.write(asdict(seen))
        return True

    async def one_step(self, batch: list[Datum], total: int) -> float:
        """Learns from a batch, one of `total`; its loss."""
        from posttrain import losses  # noqa: PLC0415  (torch: a second that only training needs)

        seen = self.seen
        weight = sum(sum(map(abs, datum.weights)) for datum in batch)
        metrics = await self.policy.forward_backward(batch, losses.cross_entropy, normaliser=weight)
        metrics |= await self.policy.optim_step(self.config.step(self.share_of_rate(total)))
        seen.step += 1
        seen.batches += 1
        seen.trained_tokens += int(metrics["trained_tokens"])
        seen.tokens += int(metrics["tokens"])
        seen.forwarded_tokens += int(metrics["forwarded_tokens"])
        self.run.log(
            epoch=seen.epoch,
            step=seen.step,
            loss=metrics["loss"],
            gradient_norm=metrics["gradient_norm"],
            forwarded_tokens=metrics["forwarded_tokens"],
            trained_tokens=metrics["trained_tokens"],
        )
        return metrics["loss"]

    def _must_stop(self) -> bool:
        """Whether the budget is used up, but for the time that judging what was trained will take."""
        left = self.run.seconds_left
        judging = self.seen.step > 0 and left is not None and left < self.seen.judging_seconds
        return judging or self.run.out_of_budget(self.seen.step)

    def share_of_rate(self, total: int) -> float:
        """Of the learning rate: linear warm-up, then linear decay over the time or the steps there are, whichever is
        used up first."""
        total = min(total, self.run.budget.steps or total)
        done = self.seen.step / total
        left = self.run.seconds_left
        if left is not None and self.run.budget.minutes:
            done = max(done, 1 - left / (self.run.budget.minutes * 60))
        warm = min(1.0, (self.seen.step + 1) / max(1.0, self.config.warmup * total))
        return warm * max(0.05, 1 - done)

    async def judge(self) -> None:
        """How good the adapter is after this epoch: logged, and kept when it is the best."""
        seen, started = self.seen, self.run.seconds
        loss = await self.loss()  # first: what it takes is free again when there are keys of completions to hold
        at_most = 2 * self._judging_seconds(self.run.seconds - started)  # answers may wait for other trainings
        score, value = await quick_score(self.learner, self.task, self.judged)
        seen.judging_seconds = min(self.run.seconds - started, at_most)
        self.run.log(epoch=seen.epoch, step=seen.step, judged_loss=loss, judged_score=score, judged_value=value)
        seen.lowest = loss if seen.lowest is None else min(seen.lowest, loss)
        if self.standing is None or Judgement(value, -loss) > self.standing:
            seen.best, seen.best_epoch = (value, -loss), seen.epoch
            await self.policy.save(self.run.folder / "best")
        seen.epoch, seen.batches = seen.epoch + 1, 0
        await self.checkpoints.write(asdict(seen))

    async def loss(self) -> float:
        """Mean negative log-likelihood of a trained token of the first judged rows, weighted as in training."""
        logprobs = await self.policy.logprobs(self.lessons)
        weights = [[datum.weights[i] for i in datum.trained] for datum in self.lessons]
        losses = [-sum(map(operator.mul, each, weight)) for each, weight in zip(logprobs, weights, strict=True)]
        return sum(losses) / sum(map(sum, weights))

    def summary(self) -> dict[str, float]:
        seen = self.seen
        return {
            "steps": seen.step,
            "epochs_kept": seen.best_epoch,
            "trained_tokens": seen.trained_tokens,
            "tokens": seen.tokens,
            "forwarded_tokens": seen.forwarded_tokens,
            "judged_loss": -seen.best[1] if seen.best else math.nan,
        }
