"""Popularity: it fills the places of a list that the model leaves empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.lake.roles import Roles
from recsys.settings import Events
from sql import load

if TYPE_CHECKING:
    from datetime import timedelta

    import duckdb
    from numpy.typing import NDArray

    from recsys.histories import Histories, Packed

_CELLS = 8_000_000
_SMALLEST = 1e-30  # share: its logarithm is finite


def popularity(
    con: duckdb.DuckDBPyConnection, packed: Packed, roles: Roles | None, half_life: timedelta | None
) -> NDArray[np.float64]:
    """Return (V,) how popular each item is: its targets, older ones counting less.

    Args:
        con: a connection with a view ``interactions``.
        packed: histories, and the items' indices; or the items alone.
        roles: what is a target; every interaction when None.
        half_life: age, by the newest target, at which one counts half; all count alike when None.
    """
    has_histories = len(packed.histories) > 0
    if half_life is None and (roles is None or has_histories):
        return packed.target_counts.astype(np.float64)
    (roles or Roles(Events())).create_macro(con)
    parameters = {"half_life": half_life.total_seconds() if half_life else np.inf}
    rows = con.sql(load("lists/recent_popularity"), params=parameters).to_arrow_table()
    index = packed.items.indices_of(rows["item_id"].combine_chunks())
    weights = np.zeros(len(packed.items) + 1, dtype=np.float64)
    weights[index] = rows["weight"].to_numpy()
    return weights[1:]


@dataclass(frozen=True)
class Popular:
    """Eligible items by their number of interactions, ties by lower index.

    Attributes:
        order: (E,) int32, item indices, most popular first.
        place: (V + 1,) int64, position of each index in ``order``; -1 where it is not eligible.
        score: (V + 1,) float32, natural logarithm of the item's share of all interactions.
    """

    order: NDArray[np.int32]
    place: NDArray[np.int64]
    score: NDArray[np.float32]

    @classmethod
    def of(cls, counts: NDArray[np.float64 | np.int64], eligible: NDArray[np.bool_]) -> Popular:
        """Rank items from (V,) counts of interactions, or weights, and (V + 1,) eligibility."""
        ranked = np.argsort(-counts, kind="stable") + 1
        order = ranked[eligible[ranked]].astype(np.int32)
        place = np.full(len(counts) + 1, -1, dtype=np.int64)
        place[order] = np.arange(len(order))
        share = np.concatenate([[0.0], counts / (counts.sum() or 1)])
        score = np.log(np.maximum(share, _SMALLEST)).astype(np.float32)
        return cls(order, place, score)

    def fill(
        self,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
        histories: Histories,
        *,
        exclude_seen: bool,
    ) -> None:
        """Fill the empty places of lists, in place.

        Args:
            items: (B, K) int32, 0 where a place is empty; empty places come last.
            scores: (B, K) float32.
            histories: of the same B users, what they have had.
            exclude_seen: whether that is left out.
        """
        need = (items == 0).sum(axis=1)
        short = np.flatnonzero(need)
        if not len(short):
            return
        listed = items.shape[1] + histories.lengths[short] * exclude_seen
        width = np.minimum(max(1, len(self.order)), listed)  # K free items lie within these
        # Users of like width together, so that one long history does not widen everybody's.
        magnitude = np.ceil(np.log2(width))
        for exponent in np.unique(magnitude):
            alike = magnitude == exponent
            users, widest = short[alike], int(width[alike].max())
            step = max(1, _CELLS // widest)
            for start in range(0, len(users), step):
                rows = users[start : start + step]
                crossed_out = np.zeros((len(rows), min(widest, len(self.order))), dtype=bool)
                row, column = np.nonzero(items[rows])
                self._cross_out(crossed_out, row, items[rows][row, column])
                if exclude_seen:
                    self._cross_out(crossed_out, *histories[rows].interactions())
                free = np.cumsum(~crossed_out, axis=1, dtype=np.int32)
                row, column = np.nonzero(~crossed_out & (free <= need[rows, None]))
                place = items.shape[1] - need[rows][row] + free[row, column] - 1
                items[rows[row], place] = self.order[column]
                scores[rows[row], place] = self.score[self.order[column]]

    def _cross_out(
        self, crossed_out: NDArray[np.bool_], rows: NDArray[np.int64], items: NDArray[np.int32]
    ) -> None:
        place = self.place[items]
        within = (place >= 0) & (place < crossed_out.shape[1])
        crossed_out[rows[within], place[within]] = True
