"""Packed user histories and the map between item ids and model indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sql import load

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from numpy.typing import NDArray

PADDING = 0
"""Index that stands for no item; items are 1..V."""


@dataclass(frozen=True)
class Histories:
    """Histories of U users in time order, packed end to end.

    Attributes:
        items: (N,) int32, item indices 1..V.
        starts: (U,) int64, where each user's history starts in ``items``.
        ends: (U,) int64, where it ends (exclusive); equal to the start when it is empty.

    ``starts`` and ``ends`` are slices of one offsets array when histories are whole, and stay
    cheap to move when they are cut: no item is ever copied.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def from_offsets(cls, items: NDArray[np.int32], offsets: NDArray[np.int64]) -> Histories:
        """Pack from (N,) items and (U + 1,) offsets."""
        return cls(items, offsets[:-1], offsets[1:])

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(U,) number of items of each user."""
        return self.ends - self.starts

    def __getitem__(self, users: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Histories:
        """The same items, only these users."""
        return Histories(self.items, self.starts[users], self.ends[users])

    def without_last(self, count: int) -> Histories:
        """The same users, each without the last ``count`` items (or empty)."""
        return Histories(self.items, self.starts, np.maximum(self.starts, self.ends - count))

    def up_to(self, count: int) -> Histories:
        """The same users, keeping only the items 1..``count``; itself where nothing else is."""
        if not self.items.size or self.items.max() <= count:
            return self
        index = np.arange(self.items.max() + 1, dtype=np.int32)
        return self.renamed(np.where(index <= count, index, PADDING))

    def renamed(self, index: NDArray[np.int32]) -> Histories:
        """The same users, each item i as ``index[i]``, without those that become padding."""
        rows, items = self.flat()
        items = index[items]
        kept = items != PADDING
        lengths = np.bincount(rows[kept], minlength=len(self))
        return Histories.from_offsets(items[kept], np.concatenate([[0], np.cumsum(lengths)]))

    def flat(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(N',) row of the user and (N',) item of every interaction these histories keep."""
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self), dtype=np.int64), lengths)
        first = np.repeat(self.starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        return rows, self.items[first + np.arange(len(rows), dtype=np.int64)]

    def padded(self, length: int) -> NDArray[np.int32]:
        """(U, length) int32: the last ``length`` items of each user, padding on the left."""
        if not self.items.size:
            return np.zeros((len(self), length), dtype=np.int32)
        at = self.ends[:, None] - np.arange(length, 0, -1, dtype=np.int64)
        held = at >= self.starts[:, None]
        return np.where(held, self.items[np.where(held, at, 0)], PADDING).astype(np.int32)


@dataclass(frozen=True)
class Packed:
    """The interactions of a DuckDB connection as histories.

    Attributes:
        users: (U,) user ids, in the source's own type, ascending.
        items: (V,) item ids; the item at position p has index p + 1.
        counts: (V,) int64, interactions of each item.
        histories: U histories over indices 1..V.
    """

    users: pa.Array
    items: pa.Array
    counts: NDArray[np.int64]
    histories: Histories


def pack(con: duckdb.DuckDBPyConnection, first: pa.Array | None = None) -> Packed:
    """Pack the view ``interactions`` of ``con``; DuckDB sorts, and spills if it must.

    Args:
        con: a connection with a view ``interactions`` (user_id, item_id, timestamp, ingested_at,
            source_row).
        first: (V0,) item ids that take the indices 1..V0, such as a model's own; the other items
            follow, most popular first. An id that no longer occurs keeps its index.
    """
    import pyarrow as pa  # here, since histories alone need nothing but numpy
    import pyarrow.compute as pc

    counted = con.sql(load("sources/vocabulary")).to_arrow_table()
    items, counts = (counted[name].combine_chunks() for name in ("item_id", "interactions"))
    if first is not None:
        place = pc.index_in(items, first)
        known = np.zeros(len(first), dtype=np.int64)
        held = pc.is_valid(place)
        known[place.drop_null().to_numpy()] = counts.filter(held).to_numpy()
        new = pc.invert(held)
        items = pa.concat_arrays([first, items.filter(new)])
        counts = np.concatenate([known, counts.filter(new).to_numpy()])
    else:
        counts = counts.to_numpy()
    index = np.arange(1, len(items) + 1, dtype=np.int32)
    con.register("vocabulary", pa.table({"item_id": items, "item": index}))
    users = con.sql(load("sources/users")).to_arrow_table()
    offsets = np.concatenate([[0], np.cumsum(users["known"].to_numpy(), dtype=np.int64)])
    packed = np.empty(offsets[-1], dtype=np.int32)
    filled = 0
    for batch in con.sql(load("sources/histories")).to_arrow_reader(1_000_000):
        packed[filled : filled + len(batch)] = batch.column(0).to_numpy()
        filled += len(batch)
    con.unregister("vocabulary")
    return Packed(
        users["user_id"].combine_chunks(), items, counts, Histories.from_offsets(packed, offsets)
    )
