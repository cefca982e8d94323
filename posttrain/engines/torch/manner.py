"""In what manner a layer attends: all that varies between architectures but for who sees whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Manner:
    """Scores are multiplied by `scale`; with a `window` each token sees so many, itself the last of them; a `cap` bends
    scores to less than itself (Gemma 2: arXiv:2408.00118, section 2); of each head, one of the `sinks` [heads] takes
    part in the softmax, a score without a value (gpt-oss: arXiv:2508.10925, section 2.3)."""

    scale: float
    window: int | None = None
    cap: float | None = None
    sinks: Tensor | None = None

    def bend(self, scores: Tensor) -> Tensor:
        """Scores, which were multiplied by the scale, of any shape."""
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def slope(self, bent: Tensor) -> Tensor | float:
        """By what a score grows that was bent when it grows itself."""
        return 1.0 if self.cap is None else 1 - (bent / self.cap).square()

    def drain(self, out: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the sinks their share of a softmax: of what it came to over the keys alone, out [batch, heads, queries,
        size], and the log-sum-exp of its scores, total [batch, heads, queries]; both with the sinks."""
        if self.sinks is None:
            return out, total
        sinks = self.sinks[:, None].to(total.dtype)
        share = torch.sigmoid(total - sinks)[..., None]
        return out * share.to(out.dtype), torch.logaddexp(total, sinks)
