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

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.evaluation.metrics import CUTOFFS
from recsys.operations.judging import (
    IDEAL,
    NIGHTS,
    JudgedLists,
    create_popular_ranks,
    judged_lists,
    judging,
)
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from recsys.lake.tables import Lake
    from recsys.settings import Settings

_TOLD = 10  # items of a list, where a night says how many users were hit
_DIGITS = 12  # sums of several threads differ in the last bits


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


def compute_live_metrics(
    lake: Lake, settings: Settings, judged: list[JudgedLists]
) -> list[dict[str, Any]]:
    """Return the rows of `live_metrics` for lists of different run_dates; several share one read.

    Raises:
        LakeError: the lake can't be read.
    """
    if not judged:
        return []
    with judging(lake, settings, judged) as con:
        return [row for lists in judged for row in _rows(con, lists)]


def _rows(con: duckdb.DuckDBPyConnection, lists: JudgedLists) -> Iterator[dict[str, Any]]:
    """Yield the rows of one night's lists."""
    create_popular_ranks(con, lists)
    cutoffs = sorted({min(cutoff, lists.k) for cutoff in CUTOFFS})
    parameters = {
        "by_model": lists.has_experiment,
        "cutoffs": cutoffs,
        "ideal": IDEAL,
        "run_date": lists.run_date,
    }
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
