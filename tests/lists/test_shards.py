"""A night in shards has the lists, checks and explanations of a night without them."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys import columns
from recsys.errors import ConfigurationError, GateError
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.lists.shards import Shards
from recsys.settings import Boost, Events, Recommending, Rules, Scale, Settings
from sql import load
from tests import lakes
from tests.lists.test_experiment import HALF, two_models
from tests.lists.test_recommend import DAY, HISTORIES, untrained

TIMES = {"generated_at", "run_id", "edition"}
SHOP = [
    {
        "user_id": user,
        "item_id": 100 + (user * 7 + place * place) % 16,
        "event": ("view", "view", "purchase")[place % 3],
        "value": float(place % 5),
        "timestamp": lakes.START + timedelta(hours=user + place),
        "source_row": 100 * user + place,
        "batch_id": "shop",
        "ingested_at": lakes.START,
    }
    for user in range(1, 30)
    for place in range(1 + user % 6)
]


def made(lake: Lake, settings: Settings, shards: int, **changes: Any) -> dict[str, pa.Table]:
    """Make the lists in so many shards; return what was written, less the times."""
    cut = settings.model_copy(update={"scale": Scale(shards=shards), **changes})
    result = recommend(
        lake,
        cut,
        cut.recommending.model_copy(update={"explained_users": 5}),
        run_date=DAY,
        run_id="run",
        bound=Bound.of(cut, DAY, "now"),
        replace_why="a test",
    )
    assert result.status == "published"
    edition = f"edition = {result.edition}"
    tables = {}
    for name in (columns.RECOMMENDATIONS, columns.POPULAR_ITEMS, columns.EXPLANATIONS):
        rows = lake.rows(name, where=edition).filter(pc.field("edition") == result.edition)
        kept = rows.drop_columns([name for name in rows.column_names if name in TIMES])
        keys = [(name, "ascending") for name in kept.column_names]
        tables[name] = kept.sort_by(keys)
    counts = result.users, result.rows, result.popular_users, result.without_list
    results = lake.rows(columns.QUALITY_RESULTS).sort_by("checked_at").to_pylist()
    newest = {row["rule"]: row["observed"] for row in results}
    assert newest.pop("every user is in one shard", "0") == "0"
    return {**tables, "counts": pa.table({"count": counts}), "rules": pa.table(newest)}


def assert_equal(lake: Lake, settings: Settings, shards: int, **changes: Any) -> None:
    whole = made(lake, settings, 1, **changes)
    lake.delete(columns.RECOMMENDATIONS, "rank > 0")  # or the lists stand, unchanged
    cut = made(lake, settings, shards, **changes)
    assert len(whole[columns.RECOMMENDATIONS]) > 20
    for name, rows in whole.items():
        assert cut[name].to_pylist() == rows.to_pylist(), name


@pytest.mark.slow
@pytest.mark.parametrize("shards", [3, 200])
def test_lists_are_those_of_one_shard(lake: Lake, settings: Settings, shards: int) -> None:
    lakes.fill(lake, {**HISTORIES, 31: [900]})
    untrained(lake, list(range(100, 117)))
    recommending = Recommending(k=5)
    assert_equal(lake, settings, shards, recommending=recommending)


@pytest.mark.slow
def test_text_ids_an_experiment_and_rules(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, {**HISTORIES, 31: [900]})
    two_models(lake)
    rules = Rules(boosts=(Boost(when="item_id < 105", factor=3.0),))
    changes = {"recommending": Recommending(k=5), "experiment": HALF, "rules": rules}
    assert_equal(lake, settings, 4, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("half_life", [None, timedelta(days=1)])
def test_what_counts_as_had_and_as_popular(
    lake: Lake, settings: Settings, half_life: timedelta | None
) -> None:
    lake.create(lakes.id_type(1), lakes.id_type(1))
    lakes.write(lake, columns.INTERACTIONS, SHOP)
    events = Events(targets=("purchase",), seen_events=("purchase",))
    recommending = Recommending(k=4, popularity_half_life=half_life)
    assert_equal(lake, settings, 3, events=events, recommending=recommending)


def test_users_who_are_in_no_shard_stop_the_night(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.fill(lake, dict(HISTORIES))
    everyone = Shards.__iter__
    monkeypatch.setattr(Shards, "__iter__", lambda self: islice(everyone(self), 1))
    with pytest.raises(GateError, match=r"every user is in one shard: \d+ violations"):
        made(lake, settings, 3)


def test_new_items_need_one_shard(lake: Lake, settings: Settings) -> None:
    lakes.fill(lake, dict(HISTORIES))
    with pytest.raises(ConfigurationError, match=r"new_items_share needs scale\.shards = 1"):
        made(lake, settings, 2, recommending=Recommending(new_items_share=0.1))


def test_a_user_stays_in_a_shard(settings: Settings) -> None:
    with open_duckdb(settings) as con:
        con.execute("create temp view interactions as select range as user_id from range(4)")
        con.execute(load("lists/create_shards"), {"shards": 10})
        found = dict(con.sql("from shard_of_users").fetchall())
    assert found == {0: 2, 1: 1, 2: 3, 3: 6}
    assert found == {user: md5_lower(str(user)) % 10 for user in range(4)}


def md5_lower(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little")  # noqa: S324
