"""Splits of histories into what is learnt from and the items that the model must find."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.histories import Histories, Packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class HeldOut:
    """Users with their history and the item that the model must find.

    Attributes:
        history: of each user, everything before the target.
        target: (U,) int32; 0 is an item that the model has no index for, a miss.
    """

    history: Histories
    target: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, users: NDArray[np.int64] | NDArray[np.bool_]) -> HeldOut:
        """The same, only these users."""
        return HeldOut(self.history[users], self.target[users])


@dataclass(frozen=True)
class Split:
    """What is learnt from and what is judged on: views of one packed array, nothing is copied.

    Attributes:
        train: every user, without validation and test items.
        validation: users with an item held out for validation.
        test: users with an item held out for the test; the history includes validation items.
    """

    train: Histories
    validation: HeldOut
    test: HeldOut


def leave_one_out(histories: Histories) -> Split:
    """Split off each user's last item (test) and the one before it (validation; 3 items or more).

    A user with two items has a test item only; a user with one item is in the training part only.
    """
    lengths = histories.lengths
    train_lengths = np.where(lengths >= 3, lengths - 2, np.minimum(lengths, 1))
    train = Histories(histories.items, histories.starts, histories.starts + train_lengths)
    return Split(
        train=train,
        validation=_last_item_held_out(histories.without_last(1)[lengths >= 3]),
        test=_last_item_held_out(histories[lengths >= 2]),
    )


def in_first_half(users: pa.Array, seed: str) -> NDArray[np.bool_]:
    """(U,) whether each user falls into the first of two halves.

    It is a hash of the id that decides, so that a user is in the same half every night, however
    many others there are.

    Args:
        users: (U,) their ids.
        seed: of the hash.
    """
    import pandas as pd  # here: the command line starts faster without it

    key = hashlib.sha256(seed.encode()).hexdigest()[:16]
    hashes = pd.util.hash_array(np.asarray(users.cast(pa.string()), dtype=object), hash_key=key)
    is_first: NDArray[np.bool_] = hashes % 2 == 0
    return is_first


def temporal(
    histories: Histories,
    before_validation: NDArray[np.int64],
    before_test: NDArray[np.int64],
) -> Split:
    """Split all users at two times: train before the first, validate between them, test after.

    Each user's target is the first item after the time; a user who has none, or nothing before it,
    is not judged. Unlike leave-one-out, nothing is learnt from what others do later (Ji et al.
    2023).

    Args:
        histories: in time order.
        before_validation: (U,) how many of a user's items lie before the first time.
        before_test: (U,) before the second one.
    """
    lengths = histories.lengths

    def held_out(before: NDArray[np.int64], until: NDArray[np.int64]) -> HeldOut:
        has_target = (before > 0) & (until > before)
        ends = histories.starts + before + 1
        return _last_item_held_out(Histories(histories.items, histories.starts, ends)[has_target])

    return Split(
        train=Histories(histories.items, histories.starts, histories.starts + before_validation),
        validation=held_out(before_validation, before_test),
        test=held_out(before_test, lengths),
    )


def reindex_by_train_popularity(
    packed: Packed, split: Callable[[Histories], Split]
) -> tuple[Packed, Split]:
    """Return the data with its items ordered by training interactions, and its split.

    Ties in a ranking go to the lower index, so an order by all interactions, those held out among
    them, would leak what the model must find. The order is by training interactions, then by id.
    """
    trained = split(packed.histories).train.counts(len(packed.items))
    table = pa.table({"trained": trained[1:], "item_id": packed.items.ids})
    keys = [("trained", "descending"), ("item_id", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys).to_numpy()
    items, index_map = packed.items.reordered(order)
    before = packed.histories
    histories = Histories(index_map[before.items], before.starts, before.ends)
    return Packed(packed.users, items, packed.counts[order], histories), split(histories)


def _last_item_held_out(histories: Histories) -> HeldOut:
    return HeldOut(histories.without_last(1), histories.items[histories.ends - 1])
