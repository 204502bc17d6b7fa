"""Packed user histories and the map between item ids and model indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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
