"""Lists against what users did after them: which lists, by which interactions.

`recsys.operations.monitoring` says how. Live metrics and replays share it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recsys import columns
from recsys.evaluation.metrics import CUTOFFS
from recsys.lake.engine import open_duckdb
from recsys.lake.roles import Roles
from recsys.registry.models import UnusableModelError, find_model, load_items
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import Settings

NIGHTS = 7
"""Run_dates that a night judges, and days that lists are judged by."""
JUDGED = max(CUTOFFS)
"""Places of a list that are looked at."""
IDEAL = np.cumsum(1 / np.log2(np.arange(2, JUDGED + 2))).tolist()
"""The best gain of 1, 2, ... items, which NDCG divides by."""
_EDITION = ("run_date", "edition", "status", "model_id", "data_until", "as_of", "inputs")
_WINDOW = pa.schema(
    [
        ("run_date", pa.date32()),
        ("days", pa.int32()),
        ("until", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class JudgedLists:
    """Lists of one run_date, and by which interactions they are judged.

    Attributes:
        run_date: the day that they are for.
        edition: which of its editions.
        model_id: the model that made them; None without one.
        data_until: interactions before this time were read.
        known_by: those ingested before this time were known.
        since: interactions from this time on judge them.
        untils: the ends of one day, two days and so on; those that are over.
        k: items of a list, up to those that are judged.
        excludes_seen: whether lists leave out what a user has had.
        has_experiment: whether another model made the lists of some users.
    """

    run_date: date
    edition: int
    model_id: str | None
    data_until: datetime
    known_by: datetime
    since: datetime
    untils: tuple[datetime, ...]
    k: int
    excludes_seen: bool
    has_experiment: bool

    @classmethod
    def of(cls, row: dict[str, Any], settings: Settings, now: datetime) -> JudgedLists:
        """Return how an edition is judged at a time, from its row of `editions`."""
        published_at = row["published_at"]
        data_until = row["data_until"] or published_at
        inputs = json.loads(row["inputs"] or "{}")
        since = min(data_until, published_at)
        first_day = settings.run_date(since)
        ends = (settings.end_of(first_day + timedelta(days=day)) for day in range(NIGHTS))
        return cls(
            run_date=row["run_date"],
            edition=row["edition"],
            model_id=row["model_id"],
            data_until=data_until,
            known_by=min(row["as_of"] or published_at, published_at),
            since=since,
            untils=tuple(end for end in ends if end <= now),
            k=min(inputs.get("k") or JUDGED, JUDGED),
            excludes_seen=inputs.get("seen", "exclude") == "exclude",
            has_experiment="experiment" in inputs,
        )

    def windows(self) -> Iterator[dict[str, Any]]:
        """Yield run_date, days and until."""
        for days, until in enumerate(self.untils, start=1):
            yield {"run_date": self.run_date, "days": days, "until": until}


def judged_lists(
    lake: Lake, settings: Settings, first: date, last: date, now: datetime
) -> list[JudgedLists]:
    """Return the lists that stand from ``first`` to ``last``, whose first day is over, in order."""
    names = [*_EDITION, "published_at"]
    days = lake.partitions(columns.RECOMMENDATIONS, "run_date")
    rows = [
        JudgedLists.of(row, settings, now)
        for row in lake.rows(columns.EDITIONS, names).to_pylist()
        if first <= row["run_date"] <= last
        and row["status"] == "current"
        and row["published_at"] is not None
        and row["run_date"].isoformat() in days
    ]
    return sorted((row for row in rows if row.untils), key=lambda row: row.run_date)


@contextmanager
def judging(
    lake: Lake, settings: Settings, judged: list[JudgedLists]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection with what users did after some lists; see `create_popular_ranks`.

    Its tables are judged_items, windows and stored_places, of all of these lists.

    Raises:
        LakeError: the lake can't be read.
    """
    span = {
        "since": min(lists.since for lists in judged),
        "until": max(lists.untils[-1] for lists in judged),
    }
    with open_duckdb(settings) as con:
        lake.view(con, columns.INTERACTIONS)
        if roles := Roles.of(settings.events):
            roles.create_macro(con)
        else:
            con.execute("create or replace temp macro roles_of(event, value, happened) as (7)")
        windows = [window for lists in judged for window in lists.windows()]
        con.register("windows", pa.Table.from_pylist(windows, schema=_WINDOW))
        con.execute(load("operations/create_recent_interactions"), span)
        con.execute(load("operations/create_first_interactions"), {"until": span["until"]})
        con.execute(load("operations/create_taken_items"))
        con.execute(load("operations/create_judged_items"))
        first, last = judged[0].run_date.isoformat(), judged[-1].run_date.isoformat()
        within = f"run_date >= '{first}' and run_date <= '{last}'"
        lake.view(con, columns.POPULAR_ITEMS, name="stored_places", where=within)
        for lists in judged:
            _insert_judged_items(lake, con, lists)
        con.execute(load("operations/create_popular_places"))
        con.execute(
            load("operations/create_crossed_out"), {"judged": JUDGED, "until": span["until"]}
        )
        yield con


def create_popular_ranks(con: duckdb.DuckDBPyConnection, lists: JudgedLists) -> None:
    """Make the table popular_ranks for one night's lists: the ranks of popularity's own lists."""
    parameters = {
        "data_until": lists.data_until,
        "edition": lists.edition,
        "excludes_seen": lists.excludes_seen,
        "judged": JUDGED,
        "known_by": lists.known_by,
        "run_date": lists.run_date,
    }
    con.execute(load("operations/create_popular_ranks"), parameters)


def _insert_judged_items(lake: Lake, con: duckdb.DuckDBPyConnection, lists: JudgedLists) -> None:
    """Add what the users of one night's lists took to the table judged_items."""
    where = f"run_date = '{lists.run_date.isoformat()}'"
    lake.view(con, columns.RECOMMENDATIONS, name="stored_lists", where=where)
    known_items = _known_items(lake, lists.model_id)
    con.register("known_items", known_items)
    parameters = {
        "data_until": lists.data_until,
        "edition": lists.edition,
        "excludes_seen": lists.excludes_seen,
        "has_model": len(known_items) > 0,
        "judged": JUDGED,
        "known_by": lists.known_by,
        "run_date": lists.run_date,
        "since": lists.since,
        "until": lists.untils[-1],
    }
    con.execute(load("operations/insert_judged_items"), parameters)


def _known_items(lake: Lake, model_id: str | None) -> pa.Table:
    """Return the items that a model knows; none where it can't say any more."""
    row = find_model(lake, model_id) if model_id else None
    try:
        ids = load_items(lake, row).ids if row else None
    except UnusableModelError:  # its files were removed, or are damaged: that is proven
        ids = None
    item_id = lake.schema(columns.ITEMS).field(columns.ITEM_ID)
    return pa.table({columns.ITEM_ID: pa.array([], item_id.type) if ids is None else ids})
