"""Users' histories in time order, and the map between items' ids and indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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

    def drop_unknown_items(self, count: int) -> Histories:
        """The same users, keeping only the items 1..``count``; itself where nothing else is."""
        if not self.items.size or self.items.max() <= count:
            return self
        index = np.arange(self.items.max() + 1, dtype=np.int32)
        return self.remap_items(np.where(index <= count, index, PADDING))

    def remap_items(self, index: NDArray[np.int32]) -> Histories:
        """The same users, each item i as ``index[i]``, without those that become padding."""
        rows, items = self.interactions()
        items = index[items]
        has_index = items != PADDING
        lengths = np.bincount(rows[has_index], minlength=len(self))
        return Histories.from_offsets(items[has_index], np.concatenate([[0], np.cumsum(lengths)]))

    def interactions(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(N',) row of the user and (N',) item of every interaction these histories keep."""
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self), dtype=np.int64), lengths)
        first = np.repeat(self.starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        return rows, self.items[first + np.arange(len(rows), dtype=np.int64)]

    def counts(self, n_items: int) -> NDArray[np.int64]:
        """(V + 1,) interactions of each index that these histories keep."""
        return np.bincount(self.interactions()[1], minlength=n_items + 1)


@dataclass(frozen=True)
class ItemIds:
    """The map between the ids of V items and their indices 1..V; 0 is padding and has no id.

    Attributes:
        ids: (V,) item ids in the source's own type, each once; position p has index p + 1.
    """

    ids: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    def of_indices(self, indices: NDArray[np.integer[Any]]) -> pa.Array:
        """(N,) ids of (N,) indices.

        Raises:
            IndexError: an index is 0 or above V.
        """
        import pyarrow as pa  # here: the model and its training run without it

        return self.ids.take(pa.array(indices - 1))

    def indices_of(self, ids: pa.Array) -> NDArray[np.int32]:
        """(N,) int32 indices of (N,) ids; 0 for an id that has none."""
        import pyarrow.compute as pc

        positions: NDArray[np.int32] = pc.index_in(ids, self.ids).fill_null(-1).to_numpy()
        return positions + np.int32(1)

    def where(self, mask: NDArray[np.bool_]) -> pa.Array:
        """Return the ids whose index is true in the (V + 1,) mask, in order."""
        import pyarrow as pa

        return self.ids.filter(pa.array(mask[1:]))

    def index_map_to(self, other: ItemIds) -> NDArray[np.int32]:
        """(V + 1,) int32: for each index here the index in ``other``, 0 where it has none."""
        if other is self:
            return np.arange(len(self) + 1, dtype=np.int32)
        return np.concatenate([np.zeros(1, dtype=np.int32), other.indices_of(self.ids)])

    def followed_by(self, other: ItemIds) -> ItemIds:
        """Return these ids with their indices, then those ids of ``other`` that are new."""
        import pyarrow as pa

        unknown = self.indices_of(other.ids) == PADDING
        return ItemIds(pa.concat_arrays([self.ids, other.ids.filter(pa.array(unknown))]))

    def reordered(self, order: NDArray[np.integer[Any]]) -> tuple[ItemIds, NDArray[np.int32]]:
        """Return the same ids in another order, and the (V + 1,) int32 map of indices to it.

        Args:
            order: (V,) the positions of the ids in their new order.
        """
        import pyarrow as pa

        index_map = np.zeros(len(self) + 1, dtype=np.int32)
        index_map[order + 1] = np.arange(1, len(self) + 1)
        return ItemIds(self.ids.take(pa.array(order))), index_map


@dataclass(frozen=True)
class Packed:
    """The interactions of a DuckDB connection as histories.

    Attributes:
        users: (U,) user ids, in the source's own type, ascending.
        items: the ids of V items and their indices.
        counts: (V,) int64, interactions of each item.
        histories: U histories over indices 1..V.
    """

    users: pa.Array
    items: ItemIds
    counts: NDArray[np.int64]
    histories: Histories
