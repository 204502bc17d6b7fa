"""Baselines, scorers like the model, for the same protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from recsys.sequences import Histories

_CELLS = 8_000_000


@dataclass(frozen=True)
class Popularity:
    """Every user gets the items with the most training interactions.

    Attributes:
        counts: (V + 1,) float32, interactions of each item; -inf at padding.
    """

    counts: NDArray[np.float32]

    @classmethod
    def of(cls, train: Histories, n_items: int) -> Popularity:
        """Count the interactions that ``train`` keeps."""
        _, items = train.flat()
        counts = np.bincount(items, minlength=n_items + 1).astype(np.float32)
        counts[0] = -np.inf
        return cls(counts)

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their scores (R, V + 1)."""
        scores = torch.from_numpy(self.counts)
        size = max(1, _CELLS // len(self.counts))
        for start in range(0, len(histories), size):
            rows = np.arange(start, min(start + size, len(histories)))
            yield rows, scores.repeat(len(rows), 1)
