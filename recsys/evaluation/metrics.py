"""Metrics, one pure function each: of the 1-based rank of a user's held-out item, or of lists."""

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


_PER_USER: Mapping[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {
    "hr": hit_rate,
    "ndcg": ndcg,
}
CUTOFFS = (5, 10, 20)
METRICS = tuple(f"{metric}@{k}" for metric in _PER_USER for k in CUTOFFS)
"""The metrics of every ranking, such as ``hr@5``."""


def mean_metrics(ranks: NDArray[np.int64]) -> dict[str, float]:
    """Return per-user means of every metric at every K, e.g. ``{"hr@5": 0.061, ...}``."""
    return {
        f"{name}@{k}": float(per_user(ranks, k).mean()) if len(ranks) else 0.0
        for name, per_user in _PER_USER.items()
        for k in CUTOFFS
    }


def intervals(
    ranks: NDArray[np.int64], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> dict[str, list[float]]:
    """Return the bootstrap interval (Efron 1979, percentiles) of each of `mean_metrics`.

    A user's metric takes one of K + 1 values, so that drawing users with replacement is drawing
    how often each value comes: exact, and its cost does not grow with the users.
    """
    if not len(ranks):
        return {name: [0.0, 0.0] for name in METRICS}
    generator = np.random.default_rng(seed)
    tails = (1 - level) / 2, (1 + level) / 2
    ends = {}
    for name, per_user in _PER_USER.items():
        for k in CUTOFFS:
            values, counts = np.unique(per_user(ranks, k), return_counts=True)
            resampled = generator.multinomial(len(ranks), counts / len(ranks), size=draws)
            means = resampled @ values / len(ranks)
            ends[f"{name}@{k}"] = np.quantile(means, tails).tolist()
    return ends


def paired_interval(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of ``ours`` - ``theirs`` over the same (U,) users.

    Paired: a user who is hard to serve is so for both, and that part of the noise falls out. As in
    `intervals`, users with one difference are drawn together.
    """
    values, counts = np.unique(np.round(ours - theirs, 12), return_counts=True)
    resampled = np.random.default_rng(seed).multinomial(len(ours), counts / len(ours), size=draws)
    low, high = np.quantile(resampled @ values / len(ours), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def coverage(lists: NDArray[np.int32], n_items: int) -> float:
    """Return the share of the catalogue that is in any list (U, K); 0 fills short ones."""
    return float(len(np.unique(lists[lists > 0])) / n_items)


def novelty(lists: NDArray[np.int32], counts: NDArray[np.int64]) -> float:
    """Return the mean of -log2(n_i / N) over all places of the lists (U, K).

    The self-information of an item's share of the interactions (Vargas & Castells 2011), in bits;
    an item without any is counted as having one. ``counts`` is (V + 1,).
    """
    listed = counts[lists[lists > 0]]
    return float(np.log2(counts.sum() / np.maximum(listed, 1)).mean()) if len(listed) else 0.0


def average_popularity(lists: NDArray[np.int32], counts: NDArray[np.int64]) -> float:
    """Return the mean over users of the mean interactions of their list's items (Yin et al. 2012).

    ``counts`` is (V + 1,); users without a list are left out.
    """
    is_item = lists > 0
    sizes = is_item.sum(1)
    has_list = sizes > 0
    means = np.where(is_item, counts[lists], 0).sum(1)[has_list] / sizes[has_list]
    return float(means.mean()) if len(means) else 0.0
