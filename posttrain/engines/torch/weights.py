"""How frozen weights lie in memory: those that multiply the same input as one, by column, in huge pages.

All are views of what is laid out, so a model's own layers have the numbers they had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.engines.torch.heap import huge_pages

QUERIES = "q_proj"

SIBLINGS = ((QUERIES, "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one module that multiply the same input, by the names that Llama and its kin give them."""

ALIKE = 2048
"""Bytes; MKL and oneDNN take up to three times as long for few rows where columns lie a multiple of it apart."""

SPARE = 16
"""Columns: a cache line of fp32."""

WHOLE = "whole"
"""What a layer calls its weight with the columns to spare, which are zero [out and some, in]."""


@dataclass(frozen=True)
class Joined:
    """Linear layers as one whose outputs are theirs side by side: `columns` says where, by their paths."""

    linear: nn.Linear
    members: Mapping[str, nn.Linear]

    @property
    def columns(self) -> dict[str, slice]:
        found, end = {}, 0
        for path, member in self.members.items():
            found[path] = slice(end, end + member.out_features)
            end += member.out_features
        return found

    def share(self) -> None:
        """The members' weights become views of the joined one's."""
        for path, columns in self.columns.items():
            self.members[path].weight.data = self.linear.weight.data[columns]


def join_siblings(model: nn.Module) -> dict[str, Joined]:
    """The siblings of a model as one each, by the path of the first."""
    owners = _owners(model)
    found = {}
    for path, module in model.named_modules():
        for names in SIBLINGS:
            within = f"{path}." if path else ""
            members = {within + name: getattr(module, name, None) for name in names}
            if _are_alike(members.values(), owners):
                found[within + names[0]] = _join(members)  # type: ignore[arg-type]
    return found


def _owners(model: nn.Module) -> Counter[Tensor | None]:
    """How many modules use each parameter."""
    return Counter(parameter for module in model.modules() for parameter in module._parameters.values())


def _are_alike(members: Iterable[Any], owners: Counter[Tensor | None]) -> bool:
    """Whether they are linear layers that can be joined, with weights that nothing else uses."""
    kinds = set()
    for member in members:
        if type(member) is not nn.Linear or owners[member.weight] > 1:
            return False
        kinds.add((member.in_features, member.bias is None, member.weight.dtype, member.weight.device))
    return len(kinds) == 1


def _join(members: dict[str, nn.Linear]) -> Joined:
    linears = list(members.values())
    weight = torch.cat([linear.weight.data for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=linears[0].bias is not None, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if linears[0].bias is not None:
        joined.bias = nn.Parameter(torch.cat([linear.bias.data for linear in linears]), requires_grad=False)
    found = Joined(joined, members)
    found.share()
    return found


def lay_out_for_products(model: nn.Module, joined: Collection[Joined] = ()) -> None:
    """Stores the frozen weights of linear layers by column, one behind the other in huge pages where the system has
    them: few rows are multiplied in 0.75 to 0.9 of the time, for nothing needs transposing on the way, and fewer pages
    have to be found; many rows no slower (docs/notes/2026-11-28-narrow-products.md, 2026-11-28-one-stream.md).

    The head's too, when it shares them with the embedding, which reads so few rows that it may take longer for each.
    Weights that other modules share stay as they are.
    """
    linears = list(_to_lay_out(model, joined))
    sizes = [(stored_columns(linear.out_features, linear.weight.itemsize), linear.in_features) for linear in linears]
    lengths = [columns * rows * linear.weight.itemsize for (columns, rows), linear in zip(sizes, linears, strict=True)]
    places = huge_pages(sum(lengths)).split(lengths)
    for linear, place, (columns, rows) in zip(linears, places, sizes, strict=True):
        by_column = place.view(linear.weight.dtype).view(rows, columns).t()
        by_column[linear.out_features :] = 0
        linear.weight.data = by_column[: linear.out_features].copy_(linear.weight.data)
        if columns > linear.out_features:
            linear.register_buffer(WHOLE, by_column, persistent=False)
    for each in joined:
        each.share()
    laid_out = {linear.weight for linear in linears}
    laid_out |= {member.weight for each in joined for member in each.members.values()}
    for parameter in model.parameters():  # else the map of the file they were read from stays in memory, and all of it
        if parameter not in laid_out:
            parameter.data = parameter.data.clone()


def stored_columns(count: int, itemsize: int) -> int:
    """Of a weight by column, which has so many: a few to spare where a row of it would begin where the last one did in
    its page, for such rows push one another out of the cache (docs/notes/2026-11-29-mkl-on-amd.md)."""
    return count + (SPARE if count * itemsize % ALIKE == 0 else 0)


def _to_lay_out(model: nn.Module, joined: Collection[Joined]) -> Iterator[nn.Linear]:
    """In the model's order; in the place of members, what they are joined to."""
    instead = {member: each.linear for each in joined for member in each.members.values()}
    owners, seen = _owners(model), set()
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    owners[embedding.weight] -= 1  # see above
    for module in model.modules():
        if isinstance(module, nn.Linear) and owners[module.weight] == 1:
            linear = instead.get(module, module)
            if linear not in seen:
                seen.add(linear)
                yield linear
