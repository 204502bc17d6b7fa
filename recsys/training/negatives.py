"""Negatives for a softmax over a catalogue that is too large to score in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.histories import Histories

_POWER = 0.75


@dataclass(frozen=True)
class Negatives:
    """Items drawn with replacement by (n + 1)^0.75 of their n interactions (Mikolov et al. 2013).

    Attributes:
        edges: (V,) float64, cumulative probability of the items 1..V.
        log_expected: (V,) float32, log of how often an item is expected among one step's draws.
        count: S, draws of one step.
    """

    edges: Tensor
    log_expected: Tensor
    count: int

    @classmethod
    def of(cls, train: Histories, n_items: int, count: int, device: torch.device) -> Negatives:
        """Take the frequencies of items 1..V in ``train``."""
        interactions = torch.from_numpy(train.counts(n_items))[1:]
        weight = (interactions.double() + 1) ** _POWER
        share = weight / weight.sum()
        return cls(share.cumsum(0).to(device), (count * share).log().float().to(device), count)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (S,) int64 items 1..V, and the log of how often each is expected."""
        at = torch.rand(
            self.count, generator=generator, dtype=torch.float64, device=self.edges.device
        )
        drawn = torch.searchsorted(self.edges, at).clamp(max=len(self.edges) - 1)
        return drawn + 1, self.log_expected[drawn]
