"""What a shop asks of every list: `[rules]`: pins, boosts, caps and diversity.

Rules choose among five times as many candidates as a list has places: the model's, then a user's
own and popular ones. Pinned items come first, then each part by score, after boosts and what
diversity costs; what a cap leaves out makes room for the next.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from recsys.histories import HAD, PADDING
from recsys.lake.check_results import CheckResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from recsys.histories import Histories
    from recsys.lists.popularity import Popular

CANDIDATES = 5
"""Times the places of a list that are ranked where rules choose among them."""
REASONS = ("model", "model-new-item", "own-history", "popular", "popular-low-confidence", "pinned")
"""The values of the column `reason`, by the code that arrays of reasons have for them."""
MODEL, NEW_ITEM, OWN, POPULAR, LOW_CONFIDENCE, PINNED = range(len(REASONS))
_PARTS = np.array([1, 1, 2, 3, 3, 0], dtype=np.int8)
"""In which order the reasons come in a list."""
_LAST = 4  # part of an empty place
_MOST_PINNED = 100  # items, of those that nobody's candidates have


@dataclass(frozen=True)
class ListRules:
    """The rules over indices of items, and what they did.

    Attributes:
        shown: (V + 1,) whether the item may be listed at all.
        pins: (V + 1,) int32, the number of the first pin that it meets, from 1; 0: none.
        boost: (V + 1,) float32, added to its score: the logarithm of the product of its factors.
        caps: column -> (V + 1,) its value as a code, -1 without one, and the most items of one.
        diversity: the same, and what an item costs for every better one of its value; or None.
        counts: what was done -> how many times, over all lists so far.
    """

    shown: NDArray[np.bool_]
    pins: NDArray[np.int32]
    boost: NDArray[np.float32]
    caps: Mapping[str, tuple[NDArray[np.int32], int]]
    diversity: tuple[NDArray[np.int32], float] | None
    counts: Counter[str] = field(default_factory=Counter)

    def choose(
        self,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        reasons: NDArray[np.int8],
        k: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        """Return the K items of each list, their scores and reasons, out of C candidates.

        Args:
            items: (B, C) int32, each once; 0 is no item.
            scores: (B, C) float32, falling within a part of the list.
            reasons: (B, C) int8, codes of `REASONS`.
            k: items of a list.
        """
        before, is_item = items[:, :k], items != PADDING
        pins = np.where(is_item, self.pins[items], 0)
        reasons = np.where(pins > 0, PINNED, reasons).astype(np.int8)
        part = np.where(is_item, _PARTS[reasons], _LAST)
        scores = np.where(pins > 0, 0, scores + self.boost[items]).astype(np.float32)
        rank = np.where(pins > 0, -pins, scores)  # pins in the order of the settings
        order = _order(part, rank)
        if self.diversity:
            codes, cost = self.diversity
            is_free = ~is_item | (pins > 0)
            taken = _nth_of_value(np.where(is_free, -1, codes[items]), order)
            scores = scores - np.float32(cost) * taken.astype(np.float32)
            order = _order(part, np.where(pins > 0, rank, scores))
        is_kept = is_item
        for name, (codes, most) in self.caps.items():
            is_over = _nth_of_value(np.where(is_kept, codes[items], -1), order) >= most
            left_out = np.take_along_axis(is_over, order, 1)[:, :k]
            self.counts[f"at most {most} per {name}: items left out"] += int(left_out.sum())
            is_kept = is_kept & ~is_over
        order = _order(np.where(is_kept, part, _LAST), np.where(pins > 0, rank, scores))[:, :k]
        items, scores, reasons = (
            np.take_along_axis(values, order, 1)
            for values in (np.where(is_kept, items, PADDING), scores, reasons)
        )
        self._count(before, items, reasons)
        return items, scores, reasons

    def with_pinned(
        self,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        reasons: NDArray[np.int8],
        histories: Histories,
        popular: Popular,
        *,
        exclude_seen: bool,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int8]]:
        """Return candidates with the pinned items that a list may hold and that are none yet.

        Args:
            items: (B, C) int32, 0 is no item.
            scores: (B, C) float32.
            reasons: (B, C) int8.
            histories: of the same B users.
            popular: which items are eligible, and their order.
            exclude_seen: whether what counts as had is left out.
        """
        pinned = popular.order[self.pins[popular.order] > 0]
        pinned = pinned[np.argsort(self.pins[pinned], kind="stable")][:_MOST_PINNED]
        column = np.full(len(self.pins), -1, dtype=np.int64)
        column[pinned] = np.arange(len(pinned))
        added = np.tile(pinned, (len(items), 1))
        row, place = np.nonzero(column[items] >= 0)
        added[row, column[items[row, place]]] = PADDING
        if exclude_seen:
            row, had = histories.of_role(HAD).interactions()
            is_pinned = column[had] >= 0
            added[row[is_pinned], column[had[is_pinned]]] = PADDING
        return (
            np.concatenate([items, added], axis=1),
            np.concatenate([scores, popular.score[added]], axis=1),
            np.concatenate([reasons, np.full(added.shape, POPULAR, dtype=np.int8)], axis=1),
        )

    def _count(
        self, before: NDArray[np.int32], items: NDArray[np.int32], reasons: NDArray[np.int8]
    ) -> None:
        """Count what is otherwise than without rules."""
        is_item = items != PADDING
        self.counts["items at another place than without rules"] += int((items != before).sum())
        if self.pins.any():
            self.counts["pins: items put first"] += int((is_item & (reasons == PINNED)).sum())
        if self.boost.any():
            self.counts["boosts: items in lists"] += int((self.boost[items] != 0).sum())


def results_of(counts: Mapping[str, int]) -> list[CheckResult]:
    """Return what the rules did, as rows of `quality_results`."""
    return [CheckResult("rules", rule, "passed", str(count), "") for rule, count in counts.items()]


def _order(part: NDArray[np.int8], rank: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return (B, C) the places of the candidates in order: by part, then by falling rank."""
    by_rank = np.argsort(-rank, axis=1, kind="stable")
    by_part = np.argsort(np.take_along_axis(part, by_rank, 1), axis=1, kind="stable")
    return np.take_along_axis(by_rank, by_part, 1)


def _nth_of_value(codes: NDArray[np.int32], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B, C) how many candidates before each, in this order, share its value; 0 for -1."""
    width = codes.shape[1]
    ordered = np.take_along_axis(codes, order, 1)
    nth = np.zeros_like(ordered, dtype=np.int64)
    for place in range(1, width):
        same = ordered[:, :place] == ordered[:, place, None]
        nth[:, place] = same.sum(1) * (ordered[:, place] >= 0)
    unordered = np.empty_like(nth)
    np.put_along_axis(unordered, order, nth, 1)
    return unordered
