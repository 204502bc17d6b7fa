"""Baselines, scorers like the model, for the same protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.histories import INPUT, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_array
    from torch import Tensor

    from recsys.histories import Histories

NEIGHBOURS, DECAY = 100, 0.7
"""Of item-kNN where nothing is tuned."""

_CELLS = 8_000_000


@dataclass(frozen=True)
class Popularity:
    """Every user gets the items with the most training interactions.

    Attributes:
        counts: (V + 1,) float32, interactions of each item; -inf at padding.
    """

    counts: NDArray[np.float32]

    @classmethod
    def of(cls, train: Histories, n_items: int) -> Popularity:
        """Count the targets that ``train`` keeps."""
        counts = train.of_role(TARGET).counts(n_items).astype(np.float32)
        counts[0] = -np.inf
        return cls(counts)

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their scores (R, V + 1)."""
        scores = torch.from_numpy(self.counts)
        for rows in _blocks(np.arange(len(histories)), len(self.counts)):
            yield rows, scores.repeat(len(rows), 1)


@dataclass(frozen=True)
class OwnHistory:
    """Each user's own items, the most frequent first, then popularity.

    It says how much of a shop is repeats. Where lists leave out what the user has had, none of its
    own items is left, and it is popularity.

    Attributes:
        popularity: the order of items that a user has had equally often.
    """

    popularity: Popularity

    @classmethod
    def of(cls, train: Histories, n_items: int) -> OwnHistory:
        """Count the targets that ``train`` keeps, for the ties."""
        return cls(Popularity.of(train, n_items))

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their scores (R, V + 1)."""
        popular = self.popularity.counts / (self.popularity.counts.max() + 1)  # below one count
        for rows in _blocks(np.arange(len(histories)), len(popular)):
            user, item = histories[rows].interactions()
            own = _sparse(user, item, (len(rows), len(popular)))
            yield rows, torch.from_numpy(own.toarray() + popular)


@dataclass(frozen=True)
class Transitions:
    """What most often came next after a user's newest item; popularity where nothing did.

    Attributes:
        counts: (V + 1, V + 1), how often column followed row in ``train``.
        popularity: the order of items that followed equally often.
    """

    counts: csr_array
    popularity: Popularity

    @classmethod
    def of(cls, train: Histories, n_items: int) -> Transitions:
        """Count each pair of neighbours whose second is a target."""
        train = train.of_role(INPUT)
        users, items = train.interactions()
        paired = users[1:] == users[:-1]
        if train.roles is not None:
            paired &= (train.roles[1:] & TARGET) != 0
        counts = _sparse(items[:-1][paired], items[1:][paired], (n_items + 1, n_items + 1))
        return cls(counts, Popularity.of(train, n_items))

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their scores (R, V + 1)."""
        popular = self.popularity.counts / (self.popularity.counts.max() + 1)  # below one count
        for rows in _blocks(np.flatnonzero(histories.lengths), len(popular)):
            newest = histories.items[histories.ends[rows] - 1]
            yield rows, torch.from_numpy(self.counts[newest].toarray() + popular)


@dataclass(frozen=True)
class ItemKNN:
    """Item-based nearest neighbours (Deshpande & Karypis 2004), newer items counting for more.

    A user's score of an item is the sum, over the history, of its cosine similarity to each item,
    where both items are described by the users who had them.

    Attributes:
        similar: (V + 1, V + 1), each row an item's most similar items.
        decay: weight of an item of the history against that of the one after it.
    """

    similar: csr_array
    decay: float

    @classmethod
    def of(cls, train: Histories, n_items: int, neighbours: int, decay: float) -> ItemKNN:
        """Keep each item's ``neighbours`` most similar items."""
        from scipy.sparse import csr_array, vstack  # here: serving runs without it

        users, items = train.of_role(INPUT).interactions()
        by_user = _sparse(users, items, (len(train), n_items + 1))
        by_user.data[:] = 1
        norms = np.sqrt(np.maximum(by_user.sum(0), 1)).astype(np.float32)
        by_user = csr_array(by_user / norms)
        by_item, parts = by_user.T.tocsr(), []
        for rows in _blocks(np.arange(n_items + 1), n_items + 1):
            similar = (by_item[rows] @ by_user).toarray()
            similar[np.arange(len(rows)), rows] = 0
            if neighbours < similar.shape[1]:
                least = np.partition(similar, -neighbours, axis=1)[:, -neighbours, None]
                similar[similar < least] = 0
            parts.append(csr_array(similar))
        return cls(vstack(parts, format="csr"), decay)

    @classmethod
    def tuned(
        cls, train: Histories, n_items: int, judge: Callable[[ItemKNN], float]
    ) -> tuple[ItemKNN, dict[str, float]]:
        """Return the best by ``judge`` of 20 settings, and which it is."""
        trials = []
        for neighbours in (20, 50, 100, 500):
            model = cls.of(train, n_items, neighbours, 1.0)
            for decay in (1.0, 0.9, 0.7, 0.5, 0.3):
                model = replace(model, decay=decay)
                setting = {"neighbours": neighbours, "decay": decay}
                trials.append((judge(model), model, setting))
        _, model, setting = max(trials, key=lambda trial: trial[0])
        return model, setting

    def __call__(self, histories: Histories) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield rows of users and their scores (R, V + 1)."""
        size = self.similar.shape[0]
        for rows in _blocks(np.flatnonzero(histories.lengths), size):
            user, item = histories[rows].interactions()
            ends = np.cumsum(histories.lengths[rows])
            steps_to_end = ends[user] - 1 - np.arange(len(item))
            weight = np.float32(self.decay) ** steps_to_end.astype(np.float32)
            history = _sparse(user, item, (len(rows), size), weight)
            scores = torch.from_numpy((history @ self.similar).toarray())
            scores[:, 0] = -torch.inf
            yield rows, scores


def _sparse(
    row: NDArray[np.int64],
    column: NDArray[np.int32],
    shape: tuple[int, int],
    value: NDArray[np.float32] | None = None,
) -> csr_array:
    """Return a float32 matrix of 1 or of values; values of one cell are added up."""
    from scipy.sparse import coo_array

    value = np.ones(len(row), dtype=np.float32) if value is None else value
    return coo_array((value, (row, column)), shape=shape).tocsr()


def _blocks(rows: NDArray[np.int64], columns: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows, so many at a time that a dense block of them stays small."""
    size = max(1, _CELLS // columns)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
