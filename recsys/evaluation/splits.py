"""Splits of histories into what is learnt from and the items that the model must find."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.histories import HAD, TARGET, Histories, Packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


VALIDATED_FROM, TESTED_FROM = 0.8, 0.9
"""Shares of all interactions before the two times of `temporal`."""


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
        is_validated: (U,) which users `validation` holds.
    """

    train: Histories
    validation: HeldOut
    test: HeldOut
    is_validated: NDArray[np.bool_]


@dataclass(frozen=True)
class SeenWindow:
    """How long an item counts as had.

    Attributes:
        seconds: (N,) int64, when each interaction happened.
        length: of the window, in seconds.
    """

    seconds: NDArray[np.int64]
    length: float


def leave_one_out(histories: Histories, window: SeenWindow | None = None) -> Split:
    """Split off each user's last target (test) and the one before it (validation).

    Without roles, every item is a target: a user with two items has a test item only; a user with
    one item is in the training part only. A target that nothing comes before is not judged. What a
    user did after the last target is left out.

    Args:
        histories: in time order; their roles say what is a target, see `Histories`.
        window: how long before a target an item counts as had; for good when None.
    """
    starts = histories.starts
    last, second_last = _last_targets(histories)
    is_tested, is_validated = last > starts, second_last > starts
    train_ends = np.where(is_validated, second_last, np.where(is_tested, last, histories.ends))
    return Split(
        train=replace(histories, ends=train_ends),
        validation=_held_out(histories, second_last, is_validated, window),
        test=_held_out(histories, last, is_tested, window),
        is_validated=is_validated,
    )


def _last_targets(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(U,) place in ``items`` of each user's last target, and of the one before; -1 without one."""
    if histories.roles is None:
        lengths = histories.lengths
        last, second_last = (
            np.where(lengths >= number, histories.ends - number, -1) for number in (1, 2)
        )
        return last, second_last
    targets = np.flatnonzero(histories.roles & TARGET)
    first, beyond = (np.searchsorted(targets, edge) for edge in (histories.starts, histories.ends))
    padded = np.append(targets, [-1, -1])  # so that an index is valid where there are no targets
    last, second_last = (
        np.where(beyond - first >= number, padded[beyond - number], -1) for number in (1, 2)
    )
    return last, second_last


def _held_out(
    histories: Histories,
    places: NDArray[np.int64],
    is_judged: NDArray[np.bool_],
    window: SeenWindow | None,
) -> HeldOut:
    """Hold out the items at these (U,) places of those users who are judged."""
    places = places[is_judged]
    before = replace(histories, starts=histories.starts[is_judged], ends=places)
    if window is not None:
        before = _without_long_ago(before, window, window.seconds[places])
    return HeldOut(before, histories.items[places])


def _without_long_ago(
    before: Histories, window: SeenWindow, target_seconds: NDArray[np.int64]
) -> Histories:
    """Return the histories without the role `HAD` where it was too long before the target."""
    roles = np.zeros(len(before.items), np.uint8) if before.roles is None else before.roles.copy()
    rows, places = before.places()
    is_long_ago = target_seconds[rows] - window.seconds[places] > window.length
    roles[places[is_long_ago]] &= ~np.uint8(HAD)
    return replace(before, roles=roles)


def in_first_half(users: pa.Array, seed: str) -> NDArray[np.bool_]:
    """(U,) whether each user falls into the first of two halves.

    It is a hash of the id that decides, so that a user is in the same half every night, however
    many others there are.

    Args:
        users: (U,) their ids.
        seed: of the hash.
    """
    is_first: NDArray[np.bool_] = user_hashes(users, seed) % 2 == 0
    return is_first


def user_hashes(users: pa.Array, seed: str) -> NDArray[np.uint64]:
    """Return a hash of each of (U,) ids, the same every night; other seeds give other ones."""
    import pandas as pd  # here: the command line starts faster without it

    key = hashlib.sha256(seed.encode()).hexdigest()[:16]
    hashes: NDArray[np.uint64] = pd.util.hash_array(
        np.asarray(users.cast(pa.string()), dtype=object), hash_key=key
    )
    return hashes


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
    starts = histories.starts

    def held_out(
        before: NDArray[np.int64], until: NDArray[np.int64]
    ) -> tuple[HeldOut, NDArray[np.bool_]]:
        has_target = (before > 0) & (until > before)
        return _held_out(histories, starts + before, has_target, None), has_target

    validation, is_validated = held_out(before_validation, before_test)
    return Split(
        train=replace(histories, ends=starts + before_validation),
        validation=validation,
        test=held_out(before_test, histories.lengths)[0],
        is_validated=is_validated,
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
    histories = replace(before, items=index_map[before.items])
    counts = packed.counts[order]
    return replace(packed, items=items, counts=counts, histories=histories), split(histories)
