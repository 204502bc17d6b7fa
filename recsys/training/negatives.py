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
        probability = weight / weight.sum()
        log_expected = (count * probability).log().float()
        return cls(probability.cumsum(0).to(device), log_expected.to(device), count)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (S,) int64 items 1..V, and the log of how often each is expected."""
        uniform = torch.rand(
            self.count, generator=generator, dtype=torch.float64, device=self.edges.device
        )
        index = torch.searchsorted(self.edges, uniform).clamp(max=len(self.edges) - 1)
        return index + 1, self.log_expected[index]
