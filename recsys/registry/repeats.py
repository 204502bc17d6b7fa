"""How much of what users do is repeats, and what that advises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recsys.histories import HAD

if TYPE_CHECKING:
    from recsys.evaluation.results import Protocol
    from recsys.evaluation.splits import HeldOut

_WORTH_ADVICE = 0.1


def repeat_share(held_out: HeldOut) -> float:
    """Return the share of targets that count as had: no list without seen items has them."""
    rows, items = held_out.history.of_role(HAD).interactions()
    users = np.unique(rows[items == held_out.target[rows]])
    return len(users) / max(1, len(held_out))


def advice(share: float, protocol: Protocol) -> str | None:
    """Return what a share of repeats advises, where lists leave out what a user has had."""
    if protocol == "unmasked" or share < _WORTH_ADVICE:
        return None
    return (
        f"{share:.0%} of last items are repeats, which no list may hold: set recommending.seen = "
        '"include", or say in [events] after which events an item is left out'
    )
