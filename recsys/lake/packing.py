"""Pack the interactions of a DuckDB connection into histories."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.histories import Histories, ItemIds, Packed
from recsys.lake.engine import clean_up
from recsys.lake.roles import ROLES
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import duckdb
    import pyarrow as pa
    from numpy.typing import NDArray

    from recsys.lake.roles import Roles

CHUNK = 1_000_000
"""Interactions that are read, renamed or moved at a time."""


@dataclass(frozen=True)
class Coded:
    """Packed histories over codes of items, which need not follow popularity.

    Attributes:
        users: one row a user, ascending: user_id, interactions, newest (the last timestamp).
        items: one row an item: item_id, interactions; position p has code p + 1.
        codes: (N,) int32, users' histories end to end.
        has_roles: whether a code is 8 times the item's plus the roles of the interaction.
        seconds: (N,) int64, when each interaction happened; None unless it was asked.
    """

    users: pa.Table
    items: pa.Table
    codes: NDArray[np.int32]
    has_roles: bool = False
    seconds: NDArray[np.int64] | None = None

    def packed(self, first: ItemIds | None = None) -> Packed:
        """Rename the codes, in place, to indices by popularity, ``first`` before; see `pack`."""
        import pyarrow.compute as pc

        by_popularity = [("interactions", "descending"), ("item_id", "ascending")]
        order = pc.sort_indices(self.items, sort_keys=by_popularity)
        coded = ItemIds(self.items["item_id"].combine_chunks())
        items, index = coded.reordered(order.to_numpy())
        if first is not None:
            popular, items = items, first.followed_by(items)
            index = popular.index_map_to(items)[index]
        counts = np.zeros(len(items) + 1, dtype=np.int64)
        counts[index[1:]] = self.items["interactions"].to_numpy()
        roles = np.empty(len(self.codes), dtype=np.uint8) if self.has_roles else None
        for start in range(0, len(self.codes), CHUNK):
            chunk = slice(start, start + CHUNK)
            if roles is not None:
                roles[chunk] = self.codes[chunk] & (ROLES - 1)
                self.codes[chunk] //= ROLES
            self.codes[chunk] = index[self.codes[chunk]]
        return Packed(
            self.users["user_id"].combine_chunks(),
            items,
            counts[1:],
            Histories.from_offsets(self.codes, offsets(self.users), roles),
            self.seconds,
        )


def offsets(users: pa.Table) -> NDArray[np.int64]:
    """(U + 1,) where each user's history starts, and the last one ends, from a `Coded`'s users."""
    return np.concatenate([[0], np.cumsum(users["interactions"].to_numpy(), dtype=np.int64)])


def pack(
    con: duckdb.DuckDBPyConnection, first: ItemIds | None = None, roles: Roles | None = None
) -> Packed:
    """Pack the view ``interactions`` of ``con``; DuckDB sorts, and spills if it must.

    Beyond the result and what DuckDB may hold, memory does not grow with the interactions.

    Args:
        con: a connection with a view ``interactions`` (user_id, item_id, timestamp, ingested_at,
            source_row).
        first: V0 item ids that keep their indices 1..V0, such as a model's own; the other items
            follow, most popular first. An id that no longer occurs keeps its index.
        roles: what each interaction is for, by its event, value and time; everything when None.
    """
    return code(con, roles).packed(first)


def code(con: duckdb.DuckDBPyConnection, roles: Roles | None = None) -> Coded:
    """Pack the view ``interactions`` of ``con`` over codes in order of item_id; see `pack`."""
    with tables(con, users=load("packing/users"), vocabulary=load("packing/vocabulary")):
        users = con.sql("select * exclude (place) from users order by place").to_arrow_table()
        items = con.sql("select * exclude (place) from vocabulary order by place").to_arrow_table()
        length = int(offsets(users)[-1])
        seconds = np.empty(length, dtype=np.int64) if roles and roles.with_seconds else None
        codes = joined(item_places(con, roles, seconds), length)
        return Coded(users, items, codes, roles is not None, seconds)


def interactions_before(
    con: duckdb.DuckDBPyConnection, validated: float, tested: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(U,) twice: how many interactions of each user of ``interactions`` lie before two times.

    Before the first time lies the share ``validated`` of all interactions, before the second one
    the share ``tested``.
    """
    shares = {"validated": validated, "tested": tested}
    counts = con.sql(load("packing/interactions_before"), params=shares).to_arrow_table()
    return counts["before_validation"].to_numpy(), counts["before_test"].to_numpy()


def joined(chunks: Iterable[NDArray[np.int32]], length: int) -> NDArray[np.int32]:
    """Return chunks of this length together as one array, without holding them twice."""
    whole, done = np.empty(length, dtype=np.int32), 0
    for chunk in chunks:
        whole[done : done + len(chunk)] = chunk
        done += len(chunk)
    if done != length:
        raise ValueError(f"{done:,} interactions where {length:,} belong")
    return whole


def item_places(
    con: duckdb.DuckDBPyConnection,
    roles: Roles | None = None,
    seconds: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int32]]:
    """Yield, in chunks, the place in ``vocabulary`` of every interaction, histories end to end.

    ``con`` has ``interactions``, and ``users`` and ``vocabulary`` with places.

    Args:
        con: the connection.
        roles: with them, each place is multiplied by 8, and the roles are added.
        seconds: (N,) that the times of the interactions are written to.
    """
    statement = load("packing/histories_with_roles" if roles else "packing/histories")
    if roles:
        roles.create_macro(con)
    done = 0
    with tables(con, arrivals=load("packing/arrivals")):
        for batch in con.sql(statement).to_arrow_reader(CHUNK):
            if seconds is not None:
                seconds[done : done + len(batch)] = batch.column(1).to_numpy()
            done += len(batch)
            yield batch.column(0).to_numpy()


@contextmanager
def tables(con: duckdb.DuckDBPyConnection, **statements: str) -> Iterator[None]:
    """Keep what each statement selects in a temporary table of its name while the block runs.

    DuckDB knows the ids' range in a table of its own, and joins integers by position.
    """
    for name, statement in statements.items():
        con.execute(f"create or replace temp table {name} as {statement}")
    try:
        yield
    finally:
        clean_up(con, *(f"drop table {name}" for name in statements))
