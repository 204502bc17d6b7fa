"""Live metrics: lists against what users did after they were made, beside popularity's lists.

The lists of a night are judged by the interactions that came after they were published, or after
the end of the data that a backfill could know. An interaction counts where its user has a list and,
where lists leave out what a user has had, where the item was new to the user. The setting `events`,
as it is now, says which events judge and which count as had; its `seen_window` is not looked at:
here an item is had for good. The first day lasts until midnight; a figure is written once all of
its days are over.

All of it is computed from the lists, the night's popular items and `interactions`: whoever
computes it again gets the same rows. A night does so for the last `NIGHTS` run_dates, so that late
interactions count as well.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.evaluation.metrics import CUTOFFS
from recsys.lake.engine import open_duckdb
from recsys.lake.roles import Roles
from recsys.registry.models import UnusableModelError, find_model, load_items
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import Settings

NIGHTS = 7
"""Run_dates that a night judges, and days that lists are judged by."""
_JUDGED = max(CUTOFFS)
_TOLD = 10  # items of a list, where a night says how many users were hit
_DIGITS = 12  # sums of several threads differ in the last bits
_EDITION = ("run_date", "edition", "status", "model_id", "data_until", "as_of", "inputs")
_WINDOW = pa.schema(
    [
        ("run_date", pa.date32()),
        ("days", pa.int32()),
        ("until", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class LiveMetricsResult:
    """What live metrics say of the newest lists that could be judged by a whole day.

    Attributes:
        nights: run_dates that were judged.
        rows: of `live_metrics`, for them.
        run_date: the newest of them.
        users: users with one of its lists who took an item that was new to them on the first day.
        k: the items of each list that the next two figures look at: ten, or all of a shorter list.
        hit_rate: share of them who took one of these.
        popularity_hit_rate: the same for the lists that popularity would have made.
        seconds: wall time.
    """

    nights: int
    rows: int
    run_date: date | None
    users: int
    k: int | None
    hit_rate: float | None
    popularity_hit_rate: float | None
    seconds: float


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
            k=min(inputs.get("k") or _JUDGED, _JUDGED),
            excludes_seen=inputs.get("seen", "exclude") == "exclude",
        )

    def windows(self) -> Iterator[dict[str, Any]]:
        """Yield run_date, days and until."""
        for days, until in enumerate(self.untils, start=1):
            yield {"run_date": self.run_date, "days": days, "until": until}


def update_live_metrics(
    lake: Lake, settings: Settings, run_date: date, *, now: datetime | None = None
) -> LiveMetricsResult:
    """Judge the lists of the last nights before ``run_date``; write what is new in one commit.

    Args:
        lake: the lake.
        settings: with the time zone, and the machine's limits.
        run_date: the night that asks.
        now: the time up to which interactions may be used; the end of the run_date, if it is over.

    Raises:
        LakeError: the lake can't be read or written.
    """
    now = now or min(datetime.now(UTC), settings.end_of(run_date))
    first, last = run_date - timedelta(days=NIGHTS), run_date - timedelta(days=1)
    return _update(lake, settings, first, last, now)


def recompute_live_metrics(lake: Lake, settings: Settings) -> LiveMetricsResult:
    """Judge all lists that the lake still has; figures of lists that have expired stay.

    Raises:
        LakeError: the lake can't be read or written.
    """
    days = sorted(map(date.fromisoformat, lake.partitions(columns.RECOMMENDATIONS, "run_date")))
    if not days:
        return _update(lake, settings, date.max, date.min, datetime.now(UTC))
    return _update(lake, settings, days[0], days[-1], datetime.now(UTC))


def _update(
    lake: Lake, settings: Settings, first: date, last: date, now: datetime
) -> LiveMetricsResult:
    """Replace the rows from ``first`` to ``last`` by those that are right."""
    started = time.perf_counter()
    judged = judged_lists(lake, settings, first, last, now)
    schema = lake.schema(columns.LIVE_METRICS)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(judged), NIGHTS):
        rows += compute_live_metrics(lake, settings, judged[start : start + NIGHTS])
    table = pa.Table.from_pylist(rows, schema=schema)
    where = f"run_date >= '{first.isoformat()}' and run_date <= '{last.isoformat()}'"
    stored = lake.rows(columns.LIVE_METRICS, where=where)
    is_within = (pc.field("run_date") >= first) & (pc.field("run_date") <= last)
    if _sorted(stored.filter(is_within)) != _sorted(table):
        lake.replace(columns.LIVE_METRICS, table, where=where)
    return _result(rows, len(judged), time.perf_counter() - started)


def _sorted(table: pa.Table) -> list[dict[str, Any]]:
    keys = [(name, "ascending") for name in ("run_date", "lists", "days", "slice", "value")]
    rows: list[dict[str, Any]] = table.sort_by([*keys, ("metric", "ascending")]).to_pylist()
    return rows


def _result(rows: list[dict[str, Any]], nights: int, seconds: float) -> LiveMetricsResult:
    newest = max((row["run_date"] for row in rows), default=None)
    first_day = {
        (row["lists"], row["metric"]): row
        for row in rows
        if (row["run_date"], row["days"], row["slice"]) == (newest, 1, "all")
    }
    cutoffs = {int(metric[3:]) for _, metric in first_day if metric.startswith("hr@")}
    k = max((cutoff for cutoff in cutoffs if cutoff <= _TOLD), default=None)
    served, popularity = (first_day.get((lists, f"hr@{k}")) for lists in ("served", "popularity"))
    return LiveMetricsResult(
        nights=nights,
        rows=len(rows),
        run_date=newest,
        users=served["users"] if served else 0,
        k=k,
        hit_rate=served["result"] if served else None,
        popularity_hit_rate=popularity["result"] if popularity else None,
        seconds=seconds,
    )


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


def compute_live_metrics(
    lake: Lake, settings: Settings, judged: list[JudgedLists]
) -> list[dict[str, Any]]:
    """Return the rows of `live_metrics` for lists of different run_dates; several share one read.

    Raises:
        LakeError: the lake can't be read.
    """
    if not judged:
        return []
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
        con.execute(load("operations/create_judged_items"))
        first, last = judged[0].run_date.isoformat(), judged[-1].run_date.isoformat()
        within = f"run_date >= '{first}' and run_date <= '{last}'"
        lake.view(con, columns.POPULAR_ITEMS, name="stored_places", where=within)
        for lists in judged:
            _insert_judged_items(lake, con, lists)
        con.execute(load("operations/create_popular_places"))
        con.execute(
            load("operations/create_crossed_out"), {"judged": _JUDGED, "until": span["until"]}
        )
        return [row for lists in judged for row in _rows(con, lists)]


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
        "judged": _JUDGED,
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


def _rows(con: duckdb.DuckDBPyConnection, lists: JudgedLists) -> Iterator[dict[str, Any]]:
    """Yield the rows of one night's lists."""
    parameters = {
        "data_until": lists.data_until,
        "edition": lists.edition,
        "excludes_seen": lists.excludes_seen,
        "judged": _JUDGED,
        "known_by": lists.known_by,
        "run_date": lists.run_date,
    }
    con.execute(load("operations/create_popular_ranks"), parameters)
    ideal = np.cumsum(1 / np.log2(np.arange(2, _JUDGED + 2))).tolist()
    cutoffs = sorted({min(cutoff, lists.k) for cutoff in CUTOFFS})
    parameters = {"cutoffs": cutoffs, "ideal": ideal, "run_date": lists.run_date}
    places = con.sql(
        "select count(*) from stored_places where run_date = $run_date and edition = $edition",
        params={"edition": lists.edition, "run_date": lists.run_date},
    ).fetchall()
    found = con.sql(load("operations/live_metrics"), params=parameters).to_arrow_table()
    for row in found.to_pylist():
        if row["lists"] != "served" and places == [(0,)]:
            continue  # lists of a release that did not keep popularity's
        yield {
            **row,
            "run_date": lists.run_date,
            "edition": lists.edition,
            "model_id": lists.model_id,
            "since": lists.since,
            "until": lists.untils[row["days"] - 1],
            **{
                name: None if row[name] is None else round(row[name], _DIGITS)
                for name in ("result", "deviation")
            },
        }
