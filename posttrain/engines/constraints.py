"""Output constraints: what may be written next, so that every answer has the task's form.

A closed set of labels is a trie of their tokens; a JSON schema is compiled by llguidance.  Where only one
continuation is possible it is *forced*: written without asking the model.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Protocol

import llguidance
import llguidance.hf
import numpy
import torch
from torch import Tensor

from posttrain.types import Output, UserError


class Constraint(Protocol):
    """The state of one completion under construction."""

    def forced(self) -> list[int]:
        """The tokens that must come next, already accepted; the stop token when the answer is complete."""
        ...

    def allowed(self, vocabulary: int) -> Tensor:
        """The tokens below `vocabulary` that may come next, in ascending order: int64 [allowed]."""
        ...

    def accept(self, token: int) -> None: ...


class ConstraintCompiler:
    """Makes constraints for one tokenizer.  `stop` is the token that ends an answer."""

    def __init__(self, tokenizer: Any, stop: int) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.compile_labels = functools.lru_cache(maxsize=64)(self._compile_labels)

    def start(self, output: Output | None) -> Constraint | None:
        """A fresh constraint for an output form; None for free text."""
        if output is None:
            return None
        if output.labels:
            return LabelConstraint(self.compile_labels(output.labels))
        if output.schema is not None:
            return SchemaConstraint(self._guidance, output.schema, self.stop)
        return None

    def _compile_labels(self, labels: tuple[str, ...]) -> Trie:
        trie: Trie = {}
        for label in labels:
            node = trie
            for token in [*self.tokenizer(label, add_special_tokens=False)["input_ids"], self.stop]:
                node = node.setdefault(token, {})
        return trie

    @functools.cached_property
    def _guidance(self) -> llguidance.LLTokenizer:
        return llguidance.hf.from_tokenizer(self.tokenizer, eos_token=self.stop)


Trie = dict[int, "Trie"]


class LabelConstraint:
    """Walks down the trie of the labels, each ended by the stop token."""

    def __init__(self, trie: Trie) -> None:
        self.node = trie

    def forced(self) -> list[int]:
        tokens = []
        while len(self.node) == 1:
            token, self.node = next(iter(self.node.items()))
            tokens.append(token)
        return tokens

    def allowed(self, vocabulary: int) -> Tensor:
        return torch.tensor(sorted(token for token in self.node if token < vocabulary))

    def accept(self, token: int) -> None:
        self.node = self.node[token]


class SchemaConstraint:
    """A JSON schema, written as `json.dumps` writes it, keys in the schema's order."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, schema: Any, stop: int) -> None:
        style: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=style)
        self.matcher = llguidance.LLMatcher(tokenizer, grammar)
        self.stop = stop
        if self.matcher.is_error():
            raise UserError(
                f"this JSON schema cannot be enforced: {self.matcher.get_error()}",
                place="task.toml [output]",
                remedy="simplify the schema (types, enum, properties, required, pattern are supported)",
            )

    def forced(self) -> list[int]:
        tokens = self.matcher.compute_ff_tokens()
        if tokens:
            self.matcher.consume_tokens(tokens)
        return [*tokens, self.stop] if self.matcher.is_stopped() and self.stop not in tokens else tokens

    def allowed(self, vocabulary: int) -> Tensor:
        bits = numpy.frombuffer(self.matcher.compute_bitmask(), dtype=numpy.uint8)
        return torch.from_numpy(numpy.unpackbits(bits, bitorder="little")[:vocabulary].nonzero()[0])

    def accept(self, token: int) -> None:
        if token != self.stop and not self.matcher.consume_token(token):
            raise RuntimeError(f"token {token} is not allowed here: {self.matcher.get_error()}")
