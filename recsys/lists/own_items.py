"""A user's own most frequent items: they come before popular ones where repeats may be listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys.histories import HAD, TARGET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recsys.histories import Histories
    from recsys.lists.popularity import Popular


def fill_own_items(
    items: NDArray[np.int32],
    scores: NDArray[np.float32],
    histories: Histories,
    popular: Popular,
    *,
    exclude_seen: bool,
) -> NDArray[np.bool_]:
    """Fill empty places of lists with the user's own items, most frequent first, in place.

    Ties go to the more popular item. The score is the natural logarithm of the item's share of the
    user's targets.

    Args:
        items: (B, K) int32, 0 where a place is empty; empty places come last.
        scores: (B, K) float32.
        histories: of the same B users.
        popular: which items are eligible, and their order.
        exclude_seen: whether what counts as had is left out.

    Returns:
        (B, K) which places it filled.
    """
    filled = np.zeros(items.shape, dtype=bool)
    need = (items == 0).sum(axis=1)
    if (exclude_seen and histories.roles is None) or not need.any():
        return filled
    size = len(popular.place)
    row, own = histories.of_role(TARGET).interactions()
    totals = np.bincount(row, minlength=len(histories))
    pairs, counts = np.unique(row * size + own, return_counts=True)
    row, own = pairs // size, pairs % size
    may_be_listed = (popular.place[own] >= 0) & (need[row] > 0)
    listed_row, place = np.nonzero(items)
    may_be_listed &= ~np.isin(pairs, listed_row * size + items[listed_row, place])
    if exclude_seen:
        had_row, had = histories.of_role(HAD).interactions()
        may_be_listed &= ~np.isin(pairs, had_row * size + had)
    row, own, counts = row[may_be_listed], own[may_be_listed], counts[may_be_listed]
    order = np.lexsort((popular.place[own], -counts, row))
    row, own, counts = row[order], own[order], counts[order]
    nth = np.arange(len(row)) - np.searchsorted(row, row)
    within = nth < need[row]
    row, own, counts, nth = row[within], own[within], counts[within], nth[within]
    place = items.shape[1] - need[row] + nth
    items[row, place] = own
    scores[row, place] = np.log(counts / totals[row])
    filled[row, place] = True
    return filled
