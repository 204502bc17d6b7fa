"""Ranking metrics, one pure function each, of the 1-based rank of each user's withheld item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

UNRANKED = np.iinfo(np.int64).max
"""The rank of an item that can't be listed at all; a miss at every K."""


def hit_rate(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return (U,) HR@K of each user: 1 if rank <= K else 0.

    With one relevant item it equals recall@K (Deshpande & Karypis 2004).
    """
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return (U,) NDCG@K of each user: 1 / log2(rank + 1) if rank <= K else 0.

    Jarvelin & Kekalainen 2002, with one relevant item, whose ideal DCG is 1.
    """
    within = ranks <= k
    return np.where(within, 1 / np.log2(np.where(within, ranks, 1) + 1.0), 0.0)


METRICS: Mapping[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {
    "hr": hit_rate,
    "ndcg": ndcg,
}
CUTOFFS = (5, 10, 20)


def figures(ranks: NDArray[np.int64]) -> dict[str, float]:
    """Return per-user means of every metric at every K, e.g. ``{"hr@5": 0.061, ...}``."""
    return {
        f"{name}@{k}": float(metric(ranks, k).mean()) if len(ranks) else 0.0
        for name, metric in METRICS.items()
        for k in CUTOFFS
    }
