"""Attention and gated layers of Llama and its kin, in fewer operations: what multiplies the same input is one product,
queries and keys are turned by their positions at once, and gates have a gradient of their own.

A model's own layer is replaced when it gives the same numbers, else left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.engines.torch.adapted_product import Again
from posttrain.engines.torch.adapters import AdaptedLinear, AdapterBank
from posttrain.engines.torch.attention import Layout
from posttrain.engines.torch.gate import gated
from posttrain.engines.torch.manner import Manner
from posttrain.engines.torch.rotation import turned
from posttrain.engines.torch.weights import QUERIES, Joined

ROUNDING: Mapping[torch.dtype, float] = {torch.float32: 1e-5}
"""Relative: the same sums in another order; of other types `COARSE`."""

COARSE = 2e-2

PROBED = 5
"""Tokens that a layer is tried with."""

SIZES = (1.0, 1e3)
"""Of what it is tried with: some layers clamp what is large."""


class Attention:
    """The forward call of an attention layer whose queries, keys and values are `joined`."""

    def __init__(self, module: Any, joined: AdaptedLinear, manner: Manner) -> None:
        self.module, self.joined, self.manner = module, joined, manner
        self.plain = module.forward
        self.size: int = module.head_dim
        self.widths = [columns.stop - columns.start for columns in joined.columns.values()]
        self.norms = [getattr(module, name, None) for name in ("q_norm", "k_norm")]

    def __call__(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], *, layout: Layout, **more: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states [1, tokens, hidden] -> the same, and no weights."""
        if position_embeddings[0].shape[2] != self.size:  # a part of each head is turned
            return self.plain(hidden_states, position_embeddings=position_embeddings, layout=layout, **more)
        return self.module.o_proj(self.seen(hidden_states, position_embeddings, layout)), None

    def seen(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        layout: Layout,
        again: Again | None = None,
    ) -> Tensor:
        """What the heads gather [1, tokens, heads * size], before it is projected; `again` are the hidden states.
        Whole heads are turned."""
        (cos, sin), tokens = position_embeddings, hidden_states.shape[1]
        parts = self._turned(self.joined.rows(hidden_states.flatten(0, 1), again), cos[0], sin[0])
        q, k, v = (part.view(1, tokens, -1, self.size).transpose(1, 2) for part in parts)
        out = layout.attend(self.module.layer_idx, q, k, v, self.manner)
        return out.transpose(1, 2).reshape(1, tokens, -1)

    def _turned(self, joined: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each [tokens, width]; normed head by head first where the model does that."""
        if not any(self.norms):
            return turned(joined, cos, sin, self.widths)
        *turning, v = joined.split(self.widths, dim=1)
        heads = [part.reshape(len(part), -1, self.size) for part in turning]
        normed = [norm(part) if norm else part for norm, part in zip(self.norms, heads, strict=True)]
        return (*turned(torch.cat(normed, dim=1).flatten(1), cos, sin, self.widths[:2]), v)


class Gated:
    """The forward call of a layer down(act(gate(x)) * up(x)) whose gate and up are `joined`."""

    def __init__(self, module: Any, joined: AdaptedLinear) -> None:
        self.module, self.joined = module, joined

    def __call__(self, x: Tensor, again: Again | None = None) -> Tensor:
        """x [..., hidden], which `again` computes -> the same."""
        joined = self.joined.rows(x.reshape(-1, x.shape[-1]), again)
        gate = partial(gated, activation=self.module.act_fn)
        return self.module.down_proj.rows(gate(joined), Again(gate, joined)).view(*x.shape[:-1], -1)


class _Recorder:
    """A layout that notes what a layer attends with."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.manner = Manner(1.0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, manner: Manner) -> Tensor:  # noqa: ARG002
        self.seen, self.manner = [q, k, v], manner
        return q


@torch.no_grad()
def replace_blocks(model: nn.Module, bank: AdapterBank, joined: Mapping[str, Joined]) -> list[Joined]:
    """Replaces the layers of a network that multiply with what was joined (by the path of the first of it), and gives
    back what is used so."""
    used = []
    for path, each in joined.items():
        parent, _, leaf = path.rpartition(".")
        module: Any = model.get_submodule(parent)
        whole = AdaptedLinear(each.linear, each.columns, bank)
        try:
            block = _attention(module, whole) if leaf == QUERIES else _gated(module, whole)
        except Exception:  # whatever a foreign layer raises, it is built otherwise
            continue
        if block:
            module.forward = block
            used.append(each)
    return used


def _attention(module: Any, joined: AdaptedLinear) -> Attention | None:
    """The block for an attention layer, when it attends with the same and gives the same."""
    angles = _noise(joined, PROBED, module.head_dim // 2).repeat(1, 1, 2)
    turns = angles.cos(), angles.sin()
    for size in SIZES:
        x = size * _noise(joined, PROBED, joined.base.in_features)
        plain, mine = _Recorder(), _Recorder()
        wanted, _ = module(x, position_embeddings=turns, attention_mask=None, layout=plain)
        block = Attention(module, joined, plain.manner)
        found, _ = block(x, turns, layout=mine)
        pairs = zip([found, *mine.seen], [wanted, *plain.seen], strict=True)
        if len(plain.seen) != 3 or not all(_are_close(*pair) for pair in pairs):
            return None
    return block


def _gated(module: Any, joined: AdaptedLinear) -> Gated | None:
    """The block for a gated layer, when it gives the same."""
    block, x = Gated(module, joined), _noise(joined, PROBED, joined.base.in_features)
    return block if all(_are_close(block(size * x), module(size * x)) for size in SIZES) else None


def _noise(like: AdaptedLinear, *shape: int) -> Tensor:
    """[1, *shape], without the global random numbers: they are the user's."""
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    return noise.to(like.base.weight)


def _are_close(found: Tensor, wanted: Tensor) -> bool:
    allowed = ROUNDING.get(wanted.dtype, COARSE)
    alike = found.shape == wanted.shape and found.dtype == wanted.dtype
    return alike and bool((found - wanted).norm() <= allowed * wanted.norm())
