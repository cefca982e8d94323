"""A policy without a language model, that really learns: for trying out techniques, and for tests of them.

The next token is predicted from the last two tokens and the bag of all that came before:

    hidden[t] = tanh(last[token t-1] + previous[token t-2] + sum_i<t bag[token i] / sqrt(t));  logits = hidden @ out

All tables are trained.  A step takes a millisecond.  Whatever a real engine must keep to, this one does
(tests/engines/test_conformance.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from posttrain.engines._toy_words import STOP, WordConstraints, WordRenderer, Words
from posttrain.engines.next_token import draw
from posttrain.engines.stepping import kept, restored, take_step
from posttrain.engines.writing import Writing, generator_for
from posttrain.optimisers import Optimiser
from posttrain.runs import disk_errors
from posttrain.types import (
    Completion,
    Datum,
    LoRA,
    Loss,
    Metrics,
    OnText,
    Policy,
    Prompt,
    Sampling,
    Task,
    Tokens,
    UserError,
    target_text,
)

HIDDEN = 64
TABLES = ("last", "previous", "bag", "out")
WEIGHTS = "toy.safetensors"


class ToyPolicy:
    """Tables [vocabulary, 64] over one `Words`.  See types.Policy; begin with `open` or `open_for`."""

    model = "toy"
    remote = False
    context_length = 4096
    sampling_bytes = 0

    def __init__(
        self,
        name: str,
        words: Words,
        tables: dict[str, Tensor],
        *,
        trainable: bool,
        version: int = 0,
    ) -> None:
        self.name, self.words, self.trainable, self.version = name, words, trainable, version
        self.renderer = WordRenderer(words)
        self.tables = {key: table.detach().clone().requires_grad_(trainable) for key, table in tables.items()}
        self._constraints = WordConstraints(words, STOP)
        self._optimiser: torch.optim.Optimizer | None = None

    @classmethod
    def open(cls, texts: Iterable[str] = (), *, seed: int = 0) -> ToyPolicy:
        """A base policy whose vocabulary is the words of `texts`; other words are spelled in bytes."""
        words = Words(texts)
        generator = torch.Generator().manual_seed(seed)
        tables = {key: 0.3 * torch.randn(len(words.tokens), HIDDEN, generator=generator) for key in TABLES}
        return cls("toy", words, tables, trainable=False)

    @classmethod
    def open_for(cls, task: Task, *, seed: int = 0) -> ToyPolicy:
        """A base policy that has a token for every word of the task's train rows, labels and instructions."""
        rows = task.splits.get("train", ())
        targets = [target_text(row.target) for row in rows if row.target is not None]
        asked = [message.content for row in rows for message in row.messages]
        return cls.open([task.instructions, *task.output.labels, *targets, *asked], seed=seed)

    # -- the five verbs

    async def sample(
        self, prompts: Sequence[Prompt], *, n: int = 1, sampling: Sampling, on_text: OnText | None = None
    ) -> list[list[Completion]]:
        """See types.Policy.  Raises UserError for a prompt that leaves no room for an answer."""
        for prompt in prompts:
            self._check_length(len(prompt) + sampling.max_tokens)

        def shower(i: int, j: int) -> Callable[[str], None] | None:
            return None if on_text is None else lambda text: on_text(i, j, text)

        return [
            [self._complete(cast(Tokens, prompt), j, sampling, shower(i, j)) for j in range(n)]
            for i, prompt in enumerate(prompts)
        ]

    async def logprobs(self, data: Sequence[Datum]) -> list[list[float]]:
        """See types.Policy."""
        with torch.inference_mode():
            return [self._trained_logprobs(datum).tolist() for datum in data]

    async def forward_backward(self, data: Sequence[Datum], loss: Loss, *, normaliser: float = 1.0) -> Metrics:
        """See types.Policy.  Metrics are sums."""
        self._check_trainable()
        if not data:
            raise UserError("there is nothing to train on", remedy="give forward_backward at least one sequence")
        for datum in data:
            self._check_length(len(datum.tokens))
            if datum.weights[0] != 0 or not datum.trained:
                raise UserError(
                    "a training sequence has nothing to train, or trains its first token",
                    remedy="give every row an answer after its prompt",
                )
        total, metrics = loss([self._trained_logprobs(datum) for datum in data], data)
        (total / normaliser).backward()
        tokens = float(sum(len(datum.tokens) for datum in data))
        return {
            **metrics,
            "loss": total.item() / normaliser,
            "tokens": tokens,
            "forwarded_tokens": tokens,
            "trained_tokens": float(sum(len(datum.trained) for datum in data)),
        }

    def keep_step(self, others: Sequence[Policy]) -> Callable[[Policy], None]:  # noqa: ARG002
        """See types.Policy.  Here each learns by itself."""
        return lambda member: None  # noqa: ARG005

    async def optim_step(self, settings: Optimiser) -> Metrics:
        """See types.Policy.  Raises UserError when there is no gradient: nothing would be learnt."""
        self._check_trainable()
        self._optimiser, metrics = take_step(list(self.tables.values()), settings, self._optimiser)
        self.version += 1
        return metrics

    async def save(self, folder: Path, *, optimiser: bool = False) -> None:
        """Writes toy.safetensors: no other program reads toys.  Raises UserError for a base."""
        self._check_trainable()
        tensors = {key: table.detach() for key, table in self.tables.items()}
        tensors |= kept(self._optimiser if optimiser else None, self.tables)
        about = {"version": str(self.version), "words": json.dumps(self.words.words)}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / WEIGHTS, about)

    async def load(self, folder: Path) -> None:
        """See types.Policy.  The vocabulary must be the same one."""
        self._check_trainable()
        self._read(folder)

    def loaded(self, folder: Path, name: str = "") -> ToyPolicy:
        """A trainable policy with the weights saved in a folder."""
        policy = self.fork(name or folder.name)
        policy._read(folder)
        return policy

    def frozen(self) -> ToyPolicy:
        """See types.Policy."""
        return ToyPolicy(f"{self.name}-frozen", self.words, self.tables, trainable=False, version=self.version)

    def fork(self, name: str, lora: LoRA | None = None, *, seed: int = 0) -> ToyPolicy:  # noqa: ARG002
        """See types.Policy.  A toy is trained whole: there is no adapter for `lora` and `seed` to shape."""
        return ToyPolicy(name, self.words, self.tables, trainable=True, version=self.version)

    def drop(self) -> None:
        """See types.Policy."""
        self.tables.clear()

    # -- what they are made of

    def _logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """[positions, vocabulary]: the prediction of the token at each position (1 or more) from those before."""
        if not self.tables:
            raise RuntimeError(f"policy {self.name} was dropped")
        sequence, at = torch.tensor(tokens), torch.tensor(positions)
        bags = self.tables["bag"][sequence[: max(positions)]].cumsum(0)[at - 1] / at.sqrt()[:, None]
        before = torch.where((at > 1)[:, None], self.tables["previous"][sequence[(at - 2).clamp(min=0)]], 0.0)
        hidden = torch.tanh(self.tables["last"][sequence[at - 1]] + before + bags)
        return hidden @ self.tables["out"].T

    def _trained_logprobs(self, datum: Datum) -> Tensor:
        positions = datum.trained
        targets = torch.tensor([datum.tokens[position] for position in positions])
        logits = self._logits(datum.tokens, positions)
        among = torch.zeros_like(logits)
        for i, position in enumerate(positions if datum.choices else ()):
            if datum.choices[position]:
                among[i] = float("-inf")
                among[i, list(datum.choices[position])] = 0
        return (logits + among).log_softmax(dim=1).gather(1, targets[:, None])[:, 0]

    @torch.inference_mode()
    def _complete(
        self,
        prompt: Tokens,
        number: int,
        sampling: Sampling,
        show: Callable[[str], None] | None,
    ) -> Completion:
        row = Writing(
            prompt=prompt,
            sampling=sampling,
            constraint=self._constraints.start(sampling.output),
            generator=generator_for(sampling, prompt, number),
        )
        row.force()
        while (reason := row.ended({STOP})) is None and not any(stop in self._text(row) for stop in sampling.stop):
            tokens = prompt + tuple(row.tokens)
            row.take(draw(self._logits(tokens, [len(tokens)]), [0], [row])[0], {STOP})
        text = self._text(row)
        text = text[: min((text.find(stop) for stop in sampling.stop if stop in text), default=len(text))]
        if show and text:
            show(text)
        return Completion(
            text,
            reason or "stop",
            tuple(row.tokens),
            tuple(row.logprobs),
            tuple(row.chosen),
            tuple(row.top_logprobs) if sampling.top_logprobs else (),
            confidence=float(torch.tensor(row.log_confidence).exp()),
            version=self.version,
            prompt=prompt,
            prompt_tokens=len(prompt),
            completion_tokens=len(row.tokens),
        )

    def _text(self, row: Writing) -> str:
        return self.words.decode(row.tokens)  # the stop token is empty text

    def _read(self, folder: Path) -> None:
        path = folder / WEIGHTS
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"not a saved toy: {error}", place=str(path), remedy="give a folder that a toy wrote"
            ) from error
        if json.loads(about["words"]) != self.words.words:
            raise UserError(
                "this toy was trained with other words", place=str(path), remedy="open it for the same task"
            )
        with torch.no_grad():
            for key, table in self.tables.items():
                table.copy_(tensors[key])
        self._optimiser, self.version = None, self.version + 1  # another version than what was cached
        if moments := {name: tensor for name, tensor in tensors.items() if name not in self.tables}:
            self._optimiser, self.version = restored(moments, self.tables), int(about["version"])

    def _check_trainable(self) -> None:
        if not self.trainable:
            raise UserError(f"policy {self.name!r} is frozen", remedy="train a fork of it")

    def _check_length(self, tokens: int) -> None:
        if tokens > self.context_length:
            raise UserError(
                f"{tokens} tokens do not fit into the model's {self.context_length}",
                remedy="shorten the row, or use fewer demonstrations",
            )
