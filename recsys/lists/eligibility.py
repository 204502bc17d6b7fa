"""Which items may be shown: `items` says so, and an item that it does not know is not shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sql import load

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

    from recsys.histories import Packed


@dataclass(frozen=True)
class Eligibility:
    """The items that may be shown, and how many may not.

    Attributes:
        mask: (V + 1,) whether each index may be listed.
        not_in_items: items that somebody interacted with and that `items` does not have.
        not_eligible: those whose ``eligible`` is not true there.
    """

    mask: NDArray[np.bool_]
    not_in_items: int
    not_eligible: int


def eligible_items(con: duckdb.DuckDBPyConnection, packed: Packed) -> Eligibility:
    """Return which items may be shown: somebody has interacted with them, and `items` has them.

    Args:
        con: a connection with a view ``items``; while that is empty, every item may be shown.
        packed: histories, and the items' indices.
    """
    indices = (np.flatnonzero(packed.counts) + 1).astype(np.int32)
    catalogue = {"item_id": packed.items.of_indices(indices), "item": indices}
    con.register("catalogue", pa.table(catalogue))
    verdicts = con.sql(load("lists/eligible_items")).to_arrow_table()
    con.unregister("catalogue")

    def items_with(verdict: str) -> NDArray[np.int32]:
        items: NDArray[np.int32] = verdicts.filter(pc.field("verdict") == verdict)[
            "item"
        ].to_numpy()
        return items

    mask = np.zeros(len(packed.items) + 1, dtype=bool)
    mask[items_with("eligible")] = True
    return Eligibility(mask, len(items_with("not in items")), len(items_with("not eligible")))
