"""A Hugging Face decoder as the engine uses it: ragged forward calls, and the output head only where needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from posttrain.engines.torch.adapters import AdapterBank, FrozenLinear, Precision
from posttrain.engines.torch.attention import NAME, ForestLayout, KeysValues, Layout
from posttrain.engines.torch.cache import Trunk
from posttrain.engines.torch.forest import SHORTEST_SHARED, Forest, plant
from posttrain.types import UserError

REMEDY = "choose another model, for example a Llama, Qwen, Mistral or SmolLM"

HEAD_ROWS = 1024
"""Positions whose logits are held in memory at once."""

UNSUPPORTED = ("logit_scale", "logits_scaling", "final_logit_softcapping")
"""Configuration entries that change the logits after the head, in ways this engine does not compute."""


class Network:
    """The base model with its adapter bank.  Call it from the torch thread only."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device, precision: Precision = "float32") -> None:
        config = model.config.get_text_config()
        odd = [name for name in UNSUPPORTED if getattr(config, name, None) not in (None, 1, 1.0)]
        if odd:
            raise UserError(
                f"{type(model).__name__} sets {', '.join(odd)}, which this engine does not compute",
                remedy=REMEDY,
            )
        self.model, self.tokenizer, self.device, self.config = model, tokenizer, device, config
        self.context_length = int(getattr(config, "max_position_embeddings", 2048))
        self.body = model.base_model
        expected = self._plain_probe()
        model.set_attn_implementation(NAME)
        self.bank = AdapterBank(model, "float32")
        self.output_head = FrozenLinear(model.get_output_embeddings(), self.bank)
        self._refuse_unless_equal(expected)
        self.bank.precision = precision

    @torch.inference_mode()
    def _plain_probe(self) -> Tensor:
        """Hidden states of two sequences that share a prefix, by the model's own code, one after the other."""
        rows = [torch.tensor([tokens], device=self.device) for tokens in self._probe()]
        return torch.cat([self.body(input_ids=ids, use_cache=False)[0][0] for ids in rows])

    def _probe(self) -> list[list[int]]:
        known = min(100, int(self.config.vocab_size) - 1)
        shared = [1 + i % known for i in range(SHORTEST_SHARED + 4)]
        return [[*shared, *(1 + (7 * i + start) % known for i in range(9))] for start in (3, 5)]

    @torch.inference_mode()
    def _refuse_unless_equal(self, expected: Tensor) -> None:
        """Many models do not take attention, positions or linear layers as this engine gives them (ALiBi, recurrence,
        mixtures of experts); what they would compute is not what they are.  So every model is tried when it is loaded.
        """
        name, sequences = type(self.model).__name__, self._probe()
        try:
            forest = plant(sequences, [""] * len(sequences))
            hidden, _ = self.forest(forest)
            got = torch.cat([hidden[forest.index(i)] for i in range(len(sequences))])
            difference = float((got - expected).abs().max() / expected.abs().max())
        except (RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise UserError(f"{name} cannot be run by this engine: {error}", remedy=REMEDY) from error
        allowed = 1e-3 if expected.dtype == torch.float32 else 5e-2
        if not difference <= allowed:  # nan is no answer either
            raise UserError(
                f"{name} gives other numbers in this engine than by itself (off by {difference:.1g})", remedy=REMEDY
            )

    def forward(self, tokens: Sequence[int], layout: Layout, positions: Tensor) -> Tensor:
        """Hidden states [tokens, hidden] of one ragged call."""
        ids = torch.tensor([tokens], device=self.device)
        return self.body(input_ids=ids, position_ids=positions, layout=layout, use_cache=False)[0][0]

    def forest(self, forest: Forest, *, trunk: Trunk | None = None, store: bool = False) -> tuple[Tensor, ForestLayout]:
        """Hidden states of a laid-out forest; the layout holds keys and values when `store`."""
        layout = ForestLayout(forest, self.device, trunk=trunk.layers if trunk else (), store=store)
        self.bank.act(forest.adapters)
        return self.forward(forest.tokens, layout, layout.positions), layout

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocabulary] of hidden states [rows, hidden]."""
        return self.output_head(hidden)

    def token_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """fp32 log-probabilities [rows] of `targets` [rows] after hidden states [rows, hidden]; in chunks."""

        def chunk(states: Tensor, wanted: Tensor) -> Tensor:
            return -torch.nn.functional.cross_entropy(self.head(states).float(), wanted, reduction="none")

        if len(targets) <= HEAD_ROWS:
            return chunk(hidden, targets)
        pieces = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
        return torch.cat([checkpoint(chunk, states, wanted, use_reentrant=False) for states, wanted in pieces])

    # ---- what the sampler needs

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        adapter: str,
        trunk: Trunk | None,
    ) -> tuple[Tensor, list[list[KeysValues]]]:
        """(hidden states [prompts, hidden] at each last token, keys and values as [layer][prompt])."""
        first = len(trunk.tokens) if trunk else 0
        forest = plant(prompts, [adapter] * len(prompts), first_position=first)
        hidden, layout = self.forest(forest, trunk=trunk, store=True)
        places = [torch.tensor(forest.index(i), device=self.device) for i in range(len(prompts))]
        last = torch.stack([place[-1] for place in places])
        keys_values = [[(k[:, :, place], v[:, :, place]) for place in places] for k, v in layout.kept]
        return hidden[last], keys_values

    def feed(self, tokens: Sequence[int], layout: Layout, owners: Sequence[tuple[str, int]]) -> Tensor:
        """Hidden states of one decoding step; owners are (adapter, tokens), rows of one adapter together."""
        spans: list[tuple[str, int, int]] = []
        end = 0
        for adapter, count in owners:
            start, end = end, end + count
            if spans and spans[-1][0] == adapter:
                spans[-1] = (adapter, spans[-1][1], end)
            else:
                spans.append((adapter, start, end))
        self.bank.act(spans)
        return self.forward(tokens, layout, layout.positions)  # type: ignore[attr-defined]

    def detokenise(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
