"""Popularity's lists of a night, kept as a shadow: to compare with what was served.

Popularity gives everybody the same items in the same order, without those that the user has had.
So one ranking a night holds all of its lists, where it is long enough: `JUDGED` places, and as many
as the longest history may cross out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.evaluation.metrics import CUTOFFS
from recsys.lists.editions import as_edition, of_date

if TYPE_CHECKING:
    from datetime import date

    from recsys.histories import ItemIds
    from recsys.lake.tables import Lake
    from recsys.lists.popularity import Popular

JUDGED = max(CUTOFFS)
"""Places of a list that live metrics look at."""


def popular_items(popular: Popular, items: ItemIds, longest: int) -> pa.Table:
    """Return place, item_id and score of the items that any user's list by popularity needs.

    Args:
        popular: the night's items by popularity.
        items: the ids of the items.
        longest: interactions of the longest history.
    """
    order = popular.order[: JUDGED + longest]
    return pa.table(
        {
            "place": np.arange(1, len(order) + 1, dtype=np.int32),
            columns.ITEM_ID: items.of_indices(order),
            "score": popular.score[order],
        }
    )


def write_popular_items(lake: Lake, items: pa.Table, run_date: date, edition: int) -> None:
    """Write the rows of an edition, in place of those that a killed run has left of it."""
    table = as_edition(lake, columns.POPULAR_ITEMS, items, run_date, edition)
    where = f"{of_date(run_date)} and edition = {edition}"
    lake.replace(columns.POPULAR_ITEMS, table, where=where)
