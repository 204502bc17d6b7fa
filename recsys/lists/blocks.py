"""Lists block by block: the model's, filled up by popularity; memory does not grow with users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.histories import HAD
from recsys.lists.own_items import fill_own_items
from recsys.lists.ranking import ranked_by_model
from recsys.lists.rules import (
    CANDIDATES,
    LOW_CONFIDENCE,
    MODEL,
    NEW_ITEM,
    OWN,
    PINNED,
    POPULAR,
    REASONS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from recsys.histories import Packed
    from recsys.lists.popularity import Popular
    from recsys.lists.ranking import Ranked
    from recsys.lists.rules import ListRules
    from recsys.lists.scored import ScoredBlocks
    from recsys.progress import Progress
    from recsys.registry.models import Model
    from recsys.settings import Recommending, Settings

_ROWS = 500_000  # checked and written at a time


@dataclass(frozen=True)
class ListBlock:
    """The lists of a block of B users.

    Attributes:
        start: position of the first user among all.
        items: (B, K) int32 indices, best first; 0 at the end of short lists.
        scores: (B, K) float32.
        reasons: (B, K) int8, codes of `REASONS`.
        confidence: (B,) float32, how likely the list has the user's next item; nan: not known.
    """

    start: int
    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    reasons: NDArray[np.int8]
    confidence: NDArray[np.float32]

    @property
    def popular_users(self) -> int:
        """Users whose whole list comes from popularity."""
        is_item = self.items != 0
        is_popular = np.isin(self.reasons, (POPULAR, LOW_CONFIDENCE, PINNED))
        return int((is_item.any(axis=1) & (is_popular | ~is_item).all(axis=1)).sum())

    @property
    def unserved(self) -> NDArray[np.int64]:
        """Positions of the users without a list (no item was left), among all."""
        return self.start + np.flatnonzero(self.items[:, 0] == 0)

    def parts(self) -> Iterator[ListBlock]:
        """Yield the same lists, so many users at a time that their rows are bounded."""
        step = max(1, _ROWS // self.items.shape[1])
        for first in range(0, len(self.items), step):
            users = slice(first, first + step)
            yield ListBlock(
                self.start + first,
                self.items[users],
                self.scores[users],
                self.reasons[users],
                self.confidence[users],
            )

    def rows(self, packed: Packed, schema: pa.Schema, model_id: str | None) -> pa.Table:
        """Return what the columns of `recommendations` say of an item, by user and rank."""
        filled = self.items != 0
        users = np.repeat(np.arange(len(filled)), filled.sum(axis=1))
        ranks = np.broadcast_to(np.arange(1, filled.shape[1] + 1, dtype=np.int32), filled.shape)
        confidence = self.confidence[users]
        return pa.table(
            [
                packed.users.slice(self.start).take(pa.array(users)),
                ranks[filled],
                packed.items.of_indices(self.items[filled]),
                self.scores[filled],
                pa.array(REASONS).take(pa.array(self.reasons[filled])),
                pa.array(confidence, mask=np.isnan(confidence)),
                pa.repeat(pa.scalar(model_id, pa.string()), len(users)),
            ],
            schema=schema,
        )

    def history(self, packed: Packed) -> pa.Table:
        """Return the interactions of these users, one a row: user_id, item_id, had."""
        histories = packed.histories[self.start : self.start + len(self.items)]
        user, places = histories.places()
        roles = HAD if histories.roles is None else histories.roles[places]
        return pa.table(
            {
                columns.USER_ID: packed.users.slice(self.start).take(pa.array(user)),
                columns.ITEM_ID: packed.items.of_indices(histories.items[places]),
                "had": np.broadcast_to((roles & HAD) != 0, len(places)),
            }
        )


def make_lists(
    model: Model | None,
    packed: Packed,
    eligible: NDArray[np.bool_],
    popular: Popular,
    recommending: Recommending,
    settings: Settings,
    progress: Progress,
    scored: ScoredBlocks | None = None,
    rules: ListRules | None = None,
) -> Iterator[ListBlock]:
    """Yield the lists block by block: the model's, filled up by own items and by popularity.

    A user's own items fill it where repeats may be listed. A list is shorter than K only where
    fewer items are left for the user.

    Args:
        model: the champion; without one, popularity serves everyone.
        packed: histories whose first indices are those of the model's items.
        eligible: (V + 1,) whether each index may be listed.
        popular: the order of popularity.
        recommending: how many items, of which kind.
        settings: the device and its threads.
        progress: called as the work goes on.
        scored: keeps the model's scores, so that a killed run goes on; without it none are kept.
        rules: choose among more candidates; without any, the first K are the list.
    """
    exclude_seen = recommending.seen == "exclude"
    known_items = len(model.items) if model else 0
    candidates = recommending.k * (CANDIDATES if rules else 1)

    def score(begin: int) -> Iterator[Ranked]:
        return ranked_by_model(model, packed, eligible, recommending, settings, begin, candidates)

    for ranked in scored.blocks(score) if scored and model else score(0):
        start, items, scores = ranked.start, ranked.items, ranked.scores
        confidence = ranked.confidence
        users = slice(start, start + len(items))
        unsure = confidence < recommending.min_confidence
        items[unsure], scores[unsure], confidence[unsure] = 0, -np.inf, np.nan
        of_model = np.where(items > known_items, NEW_ITEM, MODEL)
        fallback = np.where(unsure, LOW_CONFIDENCE, POPULAR)[:, None]
        reasons = np.where(items != 0, of_model, fallback).astype(np.int8)
        histories = packed.histories[users]
        is_own = fill_own_items(items, scores, histories, popular, exclude_seen=exclude_seen)
        reasons[is_own] = OWN
        had = histories.of_role(HAD)
        popular.fill(items, scores, had, exclude_seen=exclude_seen)
        if rules:
            items, scores, reasons = rules.with_pinned(
                items, scores, reasons, histories, popular, exclude_seen=exclude_seen
            )
            items, scores, reasons = rules.choose(items, scores, reasons, recommending.k)
        yield ListBlock(start, items, scores, reasons, confidence)
        progress("recommending", min(users.stop, len(packed.histories)), len(packed.histories))
