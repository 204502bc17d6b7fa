"""A night's users, cut into shards that are packed, scored and checked one after the other.

What grows with the users (histories, lists, what checks remember) is held for one shard at a time;
what grows with the items is held once. The lists are those of a night without shards.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.lake.engine import open_cursor
from recsys.lake.packing import Coded, pack
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from recsys.histories import ItemIds, Packed
    from recsys.lake.roles import Roles
    from recsys.lake.tables import Lake
    from recsys.lists.editions import ListInputs


@dataclass(frozen=True)
class Shard:
    """Some of a night's users.

    Attributes:
        con: its view ``interactions`` holds theirs alone.
        number: from 0; None where there is one shard, of everybody.
    """

    con: duckdb.DuckDBPyConnection
    number: int | None

    def packed(self, everybody: Packed, roles: Roles | None) -> Packed:
        """Return the histories of these users, over the same items.

        Args:
            everybody: all histories, or the items alone where there are several shards.
            roles: what each interaction is for.
        """
        if self.number is None:
            return everybody
        return replace(pack(self.con, everybody.items, roles), counts=everybody.counts)


class Shards:
    """The shards of a night.

    Args:
        lake: the lake.
        con: a connection with the view ``interactions`` of everybody.
        inputs: which interactions those are.
        count: how many shards.

    Raises:
        ConfigurationError: something is asked for that one shard can't know.
    """

    def __init__(
        self, lake: Lake, con: duckdb.DuckDBPyConnection, inputs: ListInputs, count: int
    ) -> None:
        if count > 1 and inputs.recommending.new_items_share:
            raise ConfigurationError(
                "recommending.new_items_share needs scale.shards = 1: a new item's vector comes "
                "from everybody who took it"
            )
        self._lake, self._con, self._inputs, self.count = lake, con, inputs, count
        self._are_known = False

    def __iter__(self) -> Iterator[Shard]:
        """Yield them one by one; what one holds goes before the next one comes."""
        if self.count == 1:
            yield Shard(self._con, None)
            return
        for number in range(self.count):
            with self.one(number) as shard:
                if shard is not None:
                    yield shard

    @contextmanager
    def one(self, number: int) -> Iterator[Shard | None]:
        """Give one of several shards; None where it has no users."""
        if not self._are_known:
            self._con.execute(load("lists/create_shards"), {"shards": self.count})
            self._are_known = True
        users = self._con.sql(
            "select user_id from shard_of_users where shard = $shard", params={"shard": number}
        ).to_arrow_table()
        if not len(users):
            yield None
            return
        with self._interactions_of(users) as con:
            yield Shard(con, number)

    def packed_users(self, everybody: Packed, roles: Roles | None, users: pa.Array) -> Packed:
        """Return the histories of some users, whatever shard they are in; see `Shard.packed`."""
        if self.count == 1:
            is_wanted = pc.is_in(everybody.users, users).to_numpy(zero_copy_only=False)
            return everybody.of_users(is_wanted)
        with self._interactions_of(pa.table({columns.USER_ID: users})) as con:
            return Shard(con, 0).packed(everybody, roles)

    def users(self) -> int:
        """Return how many users there are, whatever the shards say."""
        ((count,),) = self._con.execute(
            "select count(distinct user_id) from interactions"
        ).fetchall()
        return int(count)

    @contextmanager
    def _interactions_of(self, users: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
        with open_cursor(self._con) as con:
            self._inputs.bound.view(self._lake, con, self._inputs.interactions_version)
            con.register("some_users", users)
            con.execute(
                "create temp table of_some_users as "
                "from interactions semi join some_users using (user_id)"
            )
            con.unregister("some_users")
            con.execute("create or replace temp view interactions as from of_some_users")
            yield con


def items_alone(
    con: duckdb.DuckDBPyConnection, first: ItemIds | None, roles: Roles | None
) -> Packed:
    """Return the items of the view ``interactions`` and their counts as `pack` does, of nobody."""
    users = con.sql("select user_id, 0 as interactions from interactions limit 0").to_arrow_table()
    items = con.sql(load("packing/vocabulary")).to_arrow_table()
    return Coded(users, items, np.empty(0, np.int32), roles is not None).packed(first)
