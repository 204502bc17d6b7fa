"""Users' histories in time order, and the map between items' ids and indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

PADDING = 0
"""Index that stands for no item; items are 1..V."""

TARGET, INPUT, HAD = 1, 2, 4
"""Roles of an interaction, as bits: it is learnt to be predicted, read by the model, or its item
counts as had. A target is an input, too."""


@dataclass(frozen=True)
class Histories:
    """Histories of U users in time order, packed end to end.

    Attributes:
        items: (N,) int32, item indices 1..V.
        starts: (U,) int64, where each user's history starts in ``items``.
        ends: (U,) int64, where it ends (exclusive); equal to the start when it is empty.
        roles: (N,) uint8, what each interaction is for; None where each is for everything.

    ``starts`` and ``ends`` are slices of one offsets array when histories are whole, and stay
    cheap to move when they are cut: no item is ever copied.
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    roles: NDArray[np.uint8] | None = None

    @classmethod
    def from_offsets(
        cls,
        items: NDArray[np.int32],
        offsets: NDArray[np.int64],
        roles: NDArray[np.uint8] | None = None,
    ) -> Histories:
        """Pack from (N,) items and (U + 1,) offsets."""
        return cls(items, offsets[:-1], offsets[1:], roles)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(U,) number of items of each user."""
        return self.ends - self.starts

    def __getitem__(self, users: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Histories:
        """The same items, only these users."""
        return replace(self, starts=self.starts[users], ends=self.ends[users])

    def without_last(self, count: int) -> Histories:
        """The same users, each without the last ``count`` items (or empty)."""
        return replace(self, ends=np.maximum(self.starts, self.ends - count))

    def of_role(self, role: int) -> Histories:
        """The same users, keeping only the interactions with this role; itself without roles."""
        if self.roles is None:
            return self
        rows, places = self.places()
        return self._kept(rows, places, (self.roles[places] & role) != 0)

    def drop_unknown_items(self, count: int) -> Histories:
        """The same users, keeping only the items 1..``count``; itself where nothing else is."""
        if not self.items.size or self.items.max() <= count:
            return self
        index = np.arange(self.items.max() + 1, dtype=np.int32)
        return self.remap_items(np.where(index <= count, index, PADDING))

    def remap_items(self, index: NDArray[np.int32]) -> Histories:
        """The same users, each item i as ``index[i]``, without those that become padding."""
        rows, places = self.places()
        kept = self._kept(rows, places, index[self.items[places]] != PADDING)
        return replace(kept, items=index[kept.items])

    def interactions(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(N',) row of the user and (N',) item of every interaction these histories keep."""
        rows, places = self.places()
        return rows, self.items[places]

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N',) row of the user and (N',) place in ``items`` of every interaction."""
        lengths = self.lengths
        rows = np.repeat(np.arange(len(self), dtype=np.int64), lengths)
        first = np.repeat(self.starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        return rows, first + np.arange(len(rows), dtype=np.int64)

    def _kept(
        self, rows: NDArray[np.int64], places: NDArray[np.int64], is_kept: NDArray[np.bool_]
    ) -> Histories:
        """Copy of these histories with some of the interactions of `places`."""
        lengths, places = np.bincount(rows[is_kept], minlength=len(self)), places[is_kept]
        return Histories.from_offsets(
            self.items[places],
            np.concatenate([[0], np.cumsum(lengths)]),
            None if self.roles is None else self.roles[places],
        )

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
        seconds: (N,) int64, when each interaction happened, since 1970; None unless it was asked.
    """

    users: pa.Array
    items: ItemIds
    counts: NDArray[np.int64]
    histories: Histories
    seconds: NDArray[np.int64] | None = None

    def of_users(self, mask: NDArray[np.bool_]) -> Packed:
        """Return the same, of the users of a (U,) mask alone; what counts items stays."""
        import pyarrow as pa

        kept = self.users.filter(pa.array(mask))
        return replace(self, users=kept, histories=self.histories[mask])

    @property
    def target_counts(self) -> NDArray[np.int64]:
        """(V,) targets among the interactions of each item."""
        if self.histories.roles is None:
            return self.counts
        is_target = (self.histories.roles & TARGET) != 0
        return np.bincount(self.histories.items[is_target], minlength=len(self.items) + 1)[1:]
