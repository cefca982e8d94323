"""Layers that are built as Llama's, by their parts: x + attention(norm(x)), and of that, y + wide(norm(y)).

What else a layer does between its parts is not seen here: whoever computes one anew tries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from posttrain.engines.torch.adapters import AdaptedLinear
from posttrain.engines.torch.blocks import Attention, Gated
from posttrain.engines.torch.norms import Norm


@dataclass(frozen=True)
class LlamaLayer:
    """The parts of `module`, in the order in which they act."""

    module: Any
    before: Norm
    attention: Attention
    between: Norm
    wide: Gated

    @property
    def linears(self) -> list[AdaptedLinear]:
        """In the order in which they act."""
        return [self.attention.joined, self.attention.module.o_proj, self.wide.joined, self.wide.module.down_proj]

    @property
    def heads(self) -> tuple[int, int]:
        """Of queries; of keys and of values."""
        queries, keys, _ = (width // self.attention.size for width in self.attention.widths)
        return queries, keys

    @property
    def norms(self) -> list[Any]:
        """Of queries and keys, where it has them."""
        return [norm.forward for norm in self.attention.norms if norm is not None]


def llama_layers(body: Any) -> list[LlamaLayer]:
    """Those of a network; none when one of its layers is built otherwise."""
    found = list(_found(body))
    return found if len(found) == len(getattr(body, "layers", [])) else []


def _found(body: Any) -> Iterator[LlamaLayer]:
    for module in getattr(body, "layers", []):
        names = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
        before, attention, between, wide = (getattr(getattr(module, name, None), "forward", None) for name in names)
        if not (isinstance(before, Norm) and isinstance(attention, Attention)):
            return
        if not (isinstance(between, Norm) and isinstance(wide, Gated)):
            return
        yield LlamaLayer(module, before, attention, between, wide)
