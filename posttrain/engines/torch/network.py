"""A Hugging Face decoder as the engine uses it: ragged forward calls, and the output head only where needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from posttrain.engines.torch import native, native_decoder, onednn
from posttrain.engines.torch.adapters import BASE, AdapterBank, Precision
from posttrain.engines.torch.attention import NAME, ForestLayout, Layout
from posttrain.engines.torch.blocks import replace_blocks
from posttrain.engines.torch.cache import Room, SlotCache, Trunk
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.forest import SHORTEST_SHARED, Forest, plant
from posttrain.engines.torch.head import OutputHead
from posttrain.engines.torch.lean_layers import replace_layers
from posttrain.engines.torch.lower_layers import LowerLayers
from posttrain.engines.torch.native_decoder import NativeDecoder
from posttrain.engines.torch.norms import replace_norms
from posttrain.engines.torch.prefill import Read, prefill
from posttrain.engines.torch.threads import Threads, stacked
from posttrain.engines.torch.weights import join_siblings, lay_out_for_products
from posttrain.types import Datum, LoRA, Tokens, UserError

REMEDY = "choose another model, for example a Llama, Qwen, Mistral or SmolLM"

PROBE = "probe"
"""The adapter that every model is tried with."""

ENTERED_ROUNDING = 1e-6
"""Of a forward call entered at a layer: the same products of the same numbers."""

DECODER_ROUNDING: Mapping[Precision, float] = {"float32": 1e-5, "bfloat16": 2e-3, "int8": 2e-2}
"""Of few tokens that went through C: in bfloat16 what differs in its last bits may be rounded the other way; in 8 bits
few are rounded to 16 bits and not, as many are, to bfloat16."""

UNSUPPORTED = ("logit_scale", "logits_scaling", "attention_chunk_size")
"""Configuration entries that this engine does not compute: scaled logits, which the probe would refuse without a name,
and attention by chunks, which are longer than the probe."""

FREE_TOKENS: Mapping[Precision, int] = {"bfloat16": 16, "float32": 1, "int8": 2}
"""A step of so many tokens takes about as long as one of a single token: it waits for the weights to be read.  In fp32
by MKL none is free: SmolLM2-135M takes 58, 72, 90 and 119 ms of 1, 2, 4 and 8 (docs/notes/2026-11-28-one-stream.md).
A GPU reads weights in bfloat16."""

Prediction = tuple[int, int]
"""(Number of the hidden state after which it is made, token predicted.)"""


class Network:
    """The base model, frozen, with its adapter bank.  Call it from the torch thread only.

    With `deterministic`, the bits of what is read and written for one request do not depend on the others.  Prompts are
    read in calls of their own for that, which share no prefix; steps of decoding only where products are not ours:
    libraries multiply few rows in other orders than many (in bfloat16, any number of rows).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: torch.device,
        precision: Precision = "float32",
        *,
        deterministic: bool = False,
    ) -> None:
        config = model.config.get_text_config()
        odd = [name for name in UNSUPPORTED if getattr(config, name, None) not in (None, 1, 1.0)]
        if odd:
            raise UserError(
                f"{type(model).__name__} sets {', '.join(odd)}, which this engine does not compute",
                remedy=REMEDY,
            )
        self.model, self.tokenizer, self.device, self.config = model, tokenizer, device, config
        self.context_length = _context_length(config)
        self.deterministic, self.threads = deterministic, Threads(device, whole=deterministic)
        model.eval().requires_grad_(False)
        self.body = model.base_model
        joined = join_siblings(model)
        expected = self._plain_probe()
        model.set_attn_implementation(NAME)
        replace_norms(model)
        self.bank = AdapterBank(model, "float32")
        used = replace_blocks(model, self.bank, joined)
        if precision == "float32" and device.type == "cpu":
            lay_out_for_products(model, used)
        cap = getattr(config, "final_logit_softcapping", None)
        self.decoder: NativeDecoder | None = None
        self.output_head = OutputHead(model.get_output_embeddings(), self.bank, cap)
        self._refuse_unless_equal(expected)
        replace_layers(self.body, self._probe_states)
        self.lower = LowerLayers(self.body, self._enters_exactly)
        self.bank.precision = precision
        self.decoder = self._find_decoder()
        self.threads.leave()

    @torch.inference_mode()
    def _plain_probe(self) -> tuple[Tensor, Tensor]:
        """Hidden states [tokens, hidden] and logits [tokens, vocabulary] of the probe's sequences, by the model's own
        code."""
        ids = torch.tensor(self._probe(), device=self.device)
        hidden, logits = (part(input_ids=ids, use_cache=False)[0] for part in (self.body, self.model))
        return hidden.flatten(0, 1), logits.flatten(0, 1)

    def _probe(self) -> list[list[int]]:
        """Two sequences of one length that share a prefix; short, for every model that is loaded waits for them."""
        known = min(100, int(self.config.vocab_size) - 1)
        shared = [1 + i % known for i in range(SHORTEST_SHARED + 2)]
        return [[*shared, *(1 + (7 * i + start) % known for i in range(4))] for start in (3, 5)]

    @torch.inference_mode()
    def _refuse_unless_equal(self, expected: tuple[Tensor, Tensor]) -> None:
        """Many models do not take attention, positions or linear layers as this engine gives them (ALiBi, recurrence,
        mixtures of experts); what they would compute is not what they are.  So every model is tried when it is loaded.
        """
        name, sequences = type(self.model).__name__, self._probe()
        try:
            difference = self._difference_with_an_adapter(sequences, expected)
        except (RuntimeError, TypeError, AttributeError, LookupError, ValueError) as error:
            raise UserError(f"{name} cannot be run by this engine: {error}", remedy=REMEDY) from error
        allowed = 1e-3 if self.model.dtype == torch.float32 else 5e-2
        if not difference <= allowed:  # nan is no answer either
            raise UserError(
                f"{name} gives other numbers in this engine than by itself (off by {difference:.1g})", remedy=REMEDY
            )

    def _difference_with_an_adapter(self, sequences: list[list[int]], expected: tuple[Tensor, Tensor]) -> float:
        """The bare base in a forest in which an adapter acts beside it, against the model's own code; and the adapter
        there against itself alone, which is what PEFT computes."""
        hidden, logits = expected
        probe = self.bank.create(PROBE, LoRA(rank=1, alpha=1.0), seed=0)
        for _, b in probe.tensors.values():  # without the global random numbers: they are the user's
            b.copy_(torch.linspace(-0.1, 0.1, len(b))[:, None])
        try:
            few = sequences[0][:SHORTEST_SHARED]
            alone, _ = self.forest(plant([few], [PROBE]))
            forest = plant([*sequences, few], [*[BASE] * len(sequences), PROBE])
            together, _ = self.forest(forest)
        finally:
            del self.bank.adapters[PROBE]
            self.bank.act([])
        *bare, adapted = [together[forest.index(i)] for i in range(len(forest.spans))]
        rounding = _relative(torch.cat(bare), hidden)
        if _relative(adapted, bare[0][: len(few)]) <= rounding:
            raise RuntimeError("an adapter changes nothing in it")
        differences = rounding, _relative(adapted, alone), _relative(self.head(torch.cat(bare)), logits)
        return float(torch.stack(differences).max())  # nan when one is

    def forward(self, tokens: Sequence[int], layout: Layout, positions: Tensor) -> Tensor:
        """Hidden states [tokens, hidden] of one ragged call."""
        self.threads.take(len(tokens))
        ids = torch.tensor([tokens], device=self.device)
        return self.body(input_ids=ids, position_ids=positions, layout=layout, use_cache=False)[0][0]

    def forest(
        self,
        forest: Forest,
        *,
        trunk: Trunk | None = None,
        store: bool = False,
        wanted: Sequence[int] | None = None,
    ) -> tuple[Tensor, ForestLayout]:
        """Hidden states of a laid-out forest, of all its tokens or of the wanted ones, which are in order; the layout
        holds keys and values when `store`."""
        layout = ForestLayout(forest, self.device, trunk=trunk.layers if trunk else (), store=store, wanted=wanted)
        self.bank.act(forest.adapters)
        hidden = self.forward(forest.tokens, layout, layout.positions)
        if wanted is not None and len(hidden) > len(wanted):
            hidden = hidden[torch.tensor(wanted, dtype=torch.int64, device=self.device)]
        return hidden, layout

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocabulary] of hidden states [rows, hidden]."""
        pieces = hidden.split(1 if self.decodes_apart else len(hidden))
        return stacked([self.output_head.rows(piece) for piece in pieces])

    @property
    def decodes_apart(self) -> bool:
        """Whether each row of a step of decoding is computed in a call of its own."""
        head = self.output_head.frozen(torch.float32)
        return self.deterministic and (self.decoder is None or not getattr(head, "rows_are_alike", False))

    def trained_logprobs(
        self, batch: Sequence[Datum], adapters: Sequence[str]
    ) -> tuple[list[Tensor], Mapping[str, int]]:
        """Per datum the log-probabilities at its trained positions, as its adapter has them; and how many tokens were
        forwarded through each adapter."""
        # nothing is predicted from the last token of a sequence
        sequences = [datum.tokens[:-1] or datum.tokens for datum in batch]
        forest = plant(sequences, adapters)
        places = [forest.index(i) for i in range(len(batch))]
        sources = {
            place[position - 1] for place, datum in zip(places, batch, strict=True) for position in datum.trained
        }
        number = {source: i for i, source in enumerate(sorted(sources))}
        with self.lower.entered(self._entry(sequences, forest, adapters)):
            hidden, _ = self.forest(forest, wanted=list(number))
        by_choices: dict[Tokens, dict[Prediction, int]] = {}  # what sequences share is computed once
        wanted: list[tuple[Tokens, int]] = []
        for place, datum in zip(places, batch, strict=True):
            for position in datum.trained:
                choices = datum.choices[position] if datum.choices else ()
                distinct = by_choices.setdefault(choices, {})
                prediction = number[place[position - 1]], datum.tokens[position]
                wanted.append((choices, distinct.setdefault(prediction, len(distinct))))
        logprobs = [self._logprobs(hidden, list(some), choices) for choices, some in by_choices.items()]
        firsts = dict(zip(by_choices, accumulate(map(len, logprobs), initial=0), strict=False))
        order = torch.tensor([firsts[choices] + number for choices, number in wanted], device=self.device)
        per_datum = torch.cat(logprobs)[order].split([len(datum.trained) for datum in batch])
        return list(per_datum), {adapter: end - start for adapter, start, end in forest.adapters}

    def _logprobs(self, hidden: Tensor, predictions: Sequence[Prediction], choices: Tokens) -> Tensor:
        """Log-probabilities [predictions], after hidden states [wanted, hidden]."""
        sources, targets = torch.tensor(predictions, device=self.device).unbind(dim=1)
        if not choices:
            return self.output_head.token_logprobs(hidden[sources], targets)
        places = torch.tensor([choices.index(target) for _, target in predictions], device=self.device)
        return self.output_head.choice_logprobs(hidden[sources], torch.tensor(choices, device=self.device), places)

    def depth(self, adapters: Sequence[str]) -> int:
        """How many of the lowest layers none of these adapters acts on; 0 with the base, which is never trained."""
        return min(self.lower.depth(self.bank.get(adapter).tensors) if adapter else 0 for adapter in {*adapters})

    def _entry(self, sequences: Sequence[Tokens], forest: Forest, adapters: Sequence[str]) -> tuple[int, Tensor] | None:
        """(The lowest layer that an adapter acts on, what enters it); None when that is the lowest there is."""
        depth = self.depth(adapters)
        if depth == 0:
            return None
        kept: dict[Tokens, Tensor] = {}
        for tokens, adapter in dict.fromkeys(zip(sequences, adapters, strict=True)):
            states = self.lower.find(adapter, depth, tokens)
            if states is None:
                # each alone: its last bits must not depend on which others a batch, maybe of a resumed run, begins with
                states = self.lower.leave(depth, partial(self.forest, plant([tokens], [BASE])))[0]
                self.lower.keep(adapter, depth, tokens, states)
            kept[tokens] = states
        first = next(iter(kept.values()))
        entering = first.new_empty(len(forest.tokens), first.shape[-1])
        for i, tokens in enumerate(sequences):
            entering[forest.index(i)] = kept[tokens]
        return depth, entering[None]

    def _enters_exactly(self, depth: int) -> bool:
        """Whether this model, entered at a layer, computes what it does from the bottom; some index what they pass."""
        forest = plant([self._probe()[0]], [BASE])
        with torch.inference_mode():
            whole, _ = self.forest(forest)
            try:
                with self.lower.entered((depth, self.lower.leave(depth, lambda: self.forest(forest)))):
                    entered, _ = self.forest(forest)
            except (RuntimeError, TypeError, AttributeError, IndexError, ValueError):
                return False
            return bool(_relative(entered, whole) <= ENTERED_ROUNDING)

    @torch.inference_mode()
    def _probe_states(self) -> Tensor:
        """Hidden states of the probe's tokens, and of some of them alone."""
        forest = plant(self._probe(), [BASE, BASE])
        whole, _ = self.forest(forest)
        some, _ = self.forest(forest, wanted=[*range(0, len(whole), 3)])
        return torch.cat([whole, some])

    @torch.inference_mode()
    def _find_decoder(self) -> NativeDecoder | None:
        """The way through this model's layers in C, if tokens come out where they should."""
        apart = self.deterministic
        decoder = (
            NativeDecoder.of(self.body, self.bank, apart=apart) if native.suits(next(self.body.parameters())) else None
        )
        try:
            with self.threads.alone():  # as it will compute
                return decoder if decoder is not None and self._decoder_is_right(decoder) else None
        except (RuntimeError, TypeError, AttributeError, IndexError, ValueError):  # of a model that is otherwise
            return None

    def _decoder_is_right(self, decoder: NativeDecoder) -> bool:
        sequence, fed = self._probe()[0], 2
        hidden, layout = self.forest(plant([sequence], [BASE]), store=True)
        slots, before = SlotCache(), len(sequence) - fed
        slots.reserve(1, len(sequence), like=layout.kept)
        for layer, (keys, values) in enumerate(layout.kept):
            slots.write(0, layer, keys[0, :, :before], values[0, :, :before])
        step = DecodingLayout(slots, 0, [before], [fed], [None], self.device)
        found = decoder.hidden(sequence[before:], step, [], range(fed))
        return found is not None and bool(_relative(found, hidden[before:]) <= DECODER_ROUNDING[self.bank.precision])

    # ---- what the sampler needs

    def free_tokens(self, fed: int) -> int:
        """How many tokens a step may have that takes about as long as one of so many."""
        precision = self.bank.precision if self.device.type == "cpu" else "bfloat16"
        if self.decoder is not None and self.threads.wanted(1) == 1:
            return native_decoder.FREE_TOKENS if fed > 1 and precision != "int8" else 1
        by_onednn = precision == "float32" and onednn.suits(self.output_head.base.weight)
        return onednn.FREE_TOKENS if by_onednn else FREE_TOKENS[precision]

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        adapters: Sequence[str],
        trunk: Trunk | None,
        ends: Sequence[int],
        room: Room | None = None,
    ) -> Read:
        """See prefill.py."""
        return prefill(self, prompts, adapters, trunk, ends, room)

    def feed(
        self, tokens: Sequence[int], layout: DecodingLayout, owners: Sequence[tuple[str, int]], wanted: Sequence[int]
    ) -> Tensor:
        """Hidden states of the wanted tokens of a decoding step; owners are (adapter, tokens), rows of one adapter
        together."""
        spans: list[tuple[str, int, int]] = []
        end = 0
        for adapter, count in owners:
            start, end = end, end + count
            if spans and spans[-1][0] == adapter:
                spans[-1] = (adapter, spans[-1][1], end)
            else:
                spans.append((adapter, start, end))
        return self.written(tokens, layout, spans, wanted)

    def written(
        self,
        tokens: Sequence[int],
        layout: ForestLayout | DecodingLayout,
        spans: Sequence[tuple[str, int, int]],
        wanted: Sequence[int],
        entering: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Hidden states [wanted, hidden] of a call in which nothing is learnt: in C, unless on several threads.  Maybe
        from a layer on, given what enters it [tokens, hidden]."""
        self.threads.take(len(tokens))
        if self.decoder is not None and torch.get_num_threads() == 1:
            found = self.decoder.hidden(tokens, layout, spans, wanted, entering)
            if found is not None:
                return found
        rows = torch.tensor(wanted, dtype=torch.int64, device=self.device)
        self.bank.act(spans)
        try:
            with self.lower.entered(entering and (entering[0], entering[1][None])):
                return self.forward(tokens, layout, layout.positions)[rows]
        finally:
            self.bank.act([])  # nothing is held of what has acted

    def below(self, depth: int, forest: Forest) -> tuple[Tensor, ForestLayout]:
        """What enters layer `depth` [tokens, hidden] of the base, in such a call; the layout has keys and values."""
        self.threads.take(len(forest.tokens))
        if self.decoder is not None and torch.get_num_threads() == 1:
            layout = ForestLayout(forest, self.device, store=True)
            found = self.decoder.below(depth, forest.tokens, layout)
            if found is not None:
                return found, layout
        self.bank.act([])
        with torch.inference_mode(False), torch.no_grad():  # as the call below it
            layout = ForestLayout(forest, self.device, store=True)
        return self.lower.leave(depth, lambda: self.forward(forest.tokens, layout, layout.positions))[0], layout

    def detokenise(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _context_length(config: Any) -> int:
    """Tokens that a sequence may have.

    Where the frequencies of the positions go by the longest sequence of a call (longrope, of Phi 3), sequences of one
    call would change one another's numbers.  Up to the length that the model was first trained with they do not.
    """
    length = int(getattr(config, "max_position_embeddings", 2048))
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer_type = [each for each in parameters.values() if isinstance(each, Mapping)]
    changing = [each for each in (parameters, *by_layer_type) if each.get("rope_type") == "longrope"]
    return min([length, *(int(each["original_max_position_embeddings"]) for each in changing)])


def _relative(got: Tensor, wanted: Tensor) -> Tensor:
    """The size of the difference as a share of that of `wanted`; nan when there is one.

    Of root mean squares, not of maxima: one token of a probe without meaning may sit where rounding is amplified.
    """
    return (got - wanted).float().norm() / wanted.float().norm()
