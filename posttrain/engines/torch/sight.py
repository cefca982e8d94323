"""Who sees whom in a forest: the one rule that every way of computing attention goes by."""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.engines.torch.forest import Forest


class Sight:
    """What each token (query) of a forest sees of the keys: those of a trunk of so many tokens, then the forest's own.

    Trees are laid out depth first, so all that see a key lie in one run: from the key itself to the end of what hangs
    on its segment.
    """

    def __init__(self, forest: Forest, trunk_length: int, device: torch.device) -> None:
        self.forest, self.trunk_length = forest, trunk_length
        first = min(forest.positions) - trunk_length
        ends = [segment.reach for segment in forest.segments for _ in range(segment.start, segment.end)]
        self.query_positions = torch.tensor(forest.positions, device=device)
        self.key_positions = torch.tensor([*range(first, first + trunk_length), *forest.positions], device=device)
        self.seen_from = torch.tensor([0] * trunk_length + list(range(len(ends))), device=device)
        self.seen_until = torch.tensor([len(ends)] * trunk_length + ends, device=device)

    def __call__(self, queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
        """True where tokens `queries` of the layout see `keys` (counted from the trunk's first); they broadcast."""
        seen = (self.seen_from[keys] <= queries) & (queries < self.seen_until[keys])
        if window is not None:
            seen = seen & (self.query_positions[queries] - self.key_positions[keys] < window)
        return seen
