from __future__ import annotations

from datetime import timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from recsys.histories import Histories, ItemIds, Packed
from recsys.lake.engine import open_duckdb
from recsys.lake.packing import pack
from recsys.lake.tables import Lake
from recsys.settings import Settings
from tests import lakes


def packed(lake: Lake, settings: Settings, first: ItemIds | None = None) -> Packed:
    with open_duckdb(settings) as con:
        lake.view(con, "interactions")
        return pack(con, first)


def as_items(found: Packed) -> dict[object, list[object]]:
    items = [None, *found.items.ids.to_pylist()]
    return {
        user: [items[i] for i in found.histories.items[start:end]]
        for user, start, end in zip(
            found.users.to_pylist(), found.histories.starts, found.histories.ends, strict=True
        )
    }


@pytest.mark.parametrize(
    "histories",
    [
        {3: [10, 11, 10], 1: [12], 2: [11, 10]},
        {"b": ["x'", 'y"'], "a\n;": ["🙂", "x'", "x'"]},
    ],
)
def test_histories_hold_each_users_items_in_time_order(
    lake: Lake, settings: Settings, histories: dict[object, list[object]]
) -> None:
    lakes.fill(lake, histories)
    found = packed(lake, settings)
    assert as_items(found) == histories
    assert found.histories.items.dtype == np.int32
    assert found.users.to_pylist() == sorted(histories)


def test_ties_in_time_keep_the_order_of_the_source(lake: Lake, settings: Settings) -> None:
    lake.create(pa.int64(), pa.int64())
    rows = [
        {"user_id": 1, "item_id": item, "timestamp": lakes.START, "source_row": row}
        | {"batch_id": "b", "ingested_at": lakes.START}
        for row, item in enumerate([5, 3, 9, 1])
    ]
    lakes.write(lake, "interactions", rows[::-1])
    assert as_items(packed(lake, settings)) == {1: [5, 3, 9, 1]}


def test_ties_that_the_source_left_open_are_in_order_of_ingestion_then_item(
    lake: Lake, settings: Settings
) -> None:
    lake.create(pa.int64(), pa.int64())
    later = lakes.START + timedelta(days=1)
    given = [  # item, ingested_at, source_row
        (5, None, 1),
        (3, later, None),
        (2, later, None),
        (9, later, 7),
        (1, lakes.START, None),
        (8, lakes.START, 12),
    ]
    rows = [
        {"user_id": 1, "item_id": item, "timestamp": lakes.START, "batch_id": "b"}
        | {"ingested_at": ingested, "source_row": row}
        for item, ingested, row in given
    ]
    lakes.write(lake, "interactions", rows)
    assert as_items(packed(lake, settings)) == {1: [8, 1, 9, 2, 3, 5]}


@pytest.mark.slow
def test_order_holds_across_chunks_threads_and_what_is_spilled() -> None:
    rows, users = 1_500_000, 5_000
    with duckdb.connect(config={"threads": 4, "memory_limit": "100MB"}) as con:
        con.execute(
            "create temp table interactions as select "
            f"hash(r) % {users} as user_id, hash(r, 1) % 977 as item_id, "
            "hash(r, 2) % 100 as timestamp, hash(r, 3) % 3 as ingested_at, r as source_row "
            f"from range({rows}) t(r)"
        )
        found = pack(con)
        asked = "select * from interactions"
        read = con.sql(asked).fetchnumpy()
    keys = ("source_row", "ingested_at", "timestamp", "user_id")
    order = np.lexsort([read[name] for name in keys])
    index = found.items.ids.to_numpy()
    assert np.array_equal(index[found.histories.items - 1], read["item_id"][order])
    assert np.array_equal(found.histories.lengths, np.bincount(read["user_id"].astype(int)))
    assert found.histories.starts.base is found.histories.ends.base, "views of one array"


def test_items_are_indexed_by_popularity_and_ties_by_id(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [7, 8, 9], 2: [9, 8], 3: [9]})
    found = packed(lake, settings)
    assert found.items.ids.to_pylist() == [9, 8, 7]
    assert found.counts.tolist() == [3, 2, 1]


def test_a_models_items_keep_their_indices_and_new_items_follow(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [7, 8, 9], 2: [9, 8], 3: [9]})
    found = packed(lake, settings, ItemIds(pa.array([100, 8])))
    assert found.items.ids.to_pylist() == [100, 8, 9, 7]
    assert found.counts.tolist() == [0, 2, 3, 1]
    assert as_items(found) == {1: [7, 8, 9], 2: [9, 8], 3: [9]}
    known = found.histories.drop_unknown_items(2)
    assert [known[np.array([u])].interactions()[1].tolist() for u in range(3)] == [[2], [2], []]


def test_an_older_version_is_read_as_it_was(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {1: [7]})
    before = lake.version("interactions")
    lakes.fill(lake, {1: [8]}, batch_id="later", day=1)
    with open_duckdb(settings) as con:
        lake.view(con, "interactions", before)
        assert as_items(pack(con)) == {1: [7]}
        lake.view(con, "interactions")
        assert as_items(pack(con)) == {1: [7, 8]}


def test_cutting_keeps_the_right_items() -> None:
    whole = Histories.from_offsets(
        np.array([1, 2, 3, 4, 5, 6], dtype=np.int32), np.array([0, 3, 3, 6])
    )
    assert whole.lengths.tolist() == [3, 0, 3]
    assert [each.tolist() for each in whole.without_last(2).interactions()] == [[0, 2], [1, 4]]
    rows, items = whole.without_last(1)[np.array([2, 0])].interactions()
    assert rows.tolist() == [0, 0, 1, 1]
    assert items.tolist() == [4, 5, 1, 2]
