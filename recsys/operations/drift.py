"""Drift: how far the newest interactions are from those that the newest training learnt from.

Two distributions are compared by the population stability index, the sum over bins of
(p - q) ln(p / q). 0 means that they are the same; by custom, 0.1 is worth a look and 0.25 a
training. Half a row is added to each bin, so that an empty one is no infinity.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from math import log
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.registry.models import model_rows
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recsys.lake.tables import Lake
    from recsys.settings import Drift, Settings

DISTRIBUTIONS = ("item popularity", "categories", "history lengths", "hours", "weekdays")
QUARANTINED = "quarantined rows"
_DIGITS = 12
_WINDOW = ("since", "until")  # how the columns of the two windows end


@dataclass(frozen=True)
class DriftResult:
    """What a night says of drift.

    Attributes:
        run_date: the night.
        verdict: the worst of all measures: steady, warn, retrain, or unknown.
        why: the measures that are beyond a limit, with their figures; empty where there are none.
        asks_for_training: whether a training is asked for: it would see what the newest one did
            not, which is longer ago than the newest time that was looked at.
        seconds: wall time.
    """

    run_date: date
    verdict: str
    why: str
    asks_for_training: bool
    seconds: float


def stability_index(rows: list[int], reference: list[int]) -> float:
    """Return the population stability index of two lists of counts over the same bins."""
    half = 0.5
    total, reference_total = (sum(counts) + half * len(counts) for counts in (rows, reference))
    shares = [
        ((count + half) / total, (other + half) / reference_total)
        for count, other in zip(rows, reference, strict=True)
    ]
    return sum((p - q) * log(p / q) for p, q in shares)


def update_drift(
    lake: Lake, settings: Settings, run_date: date, *, now: datetime | None = None
) -> DriftResult:
    """Measure the drift of a night, and write its rows of `drift` in one commit.

    Args:
        lake: the lake.
        settings: with the limits.
        run_date: the night.
        now: the end of the newest interactions; the end of the run_date, if it is over.

    Raises:
        LakeError: the lake can't be read or written.
    """
    started = time.perf_counter()
    until = now or min(datetime.now(UTC), settings.end_of(run_date))
    # A model that this night itself trains does not count, so that a second run changes nothing.
    begin = settings.end_of(run_date - timedelta(days=1))
    newest = next((model for model in model_rows(lake) if model.trained_at < begin), None)
    since = until - settings.drift.recent
    reference_until = newest.trained_at if newest else since
    span = {
        "since": since,
        "until": until,
        "reference_since": reference_until - settings.drift.reference,
        "reference_until": reference_until,
    }
    model_id = newest.model_id if newest else None
    shared = {**span, "run_date": run_date, "model_id": model_id}
    rows = [{**row, **shared} for row in _measures(lake, settings, span)]
    table = pa.Table.from_pylist(rows, schema=lake.schema(columns.DRIFT))
    where = f"run_date = '{run_date.isoformat()}'"
    stored = lake.rows(columns.DRIFT, where=where).to_pylist()
    stored = [row for row in stored if row["run_date"] == run_date]
    if _figures(stored) != _figures(table.to_pylist()):
        lake.replace(columns.DRIFT, table, where=where)
    beyond = [row for row in rows if row["verdict"] in ("warn", "retrain")]
    verdicts = [row["verdict"] for row in rows]
    verdict = next(v for v in ("retrain", "warn", "steady", "unknown") if v in verdicts)
    return DriftResult(
        run_date=run_date,
        verdict=verdict,
        why="; ".join(_told(row) for row in beyond),
        asks_for_training=verdict == "retrain" and newest is not None and reference_until <= since,
        seconds=time.perf_counter() - started,
    )


def _figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without their windows, whose ends move with the clock."""
    return [{name: row[name] for name in row if not name.endswith(_WINDOW)} for row in rows]


def _measures(
    lake: Lake, settings: Settings, span: dict[str, datetime]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `drift` without what they share."""
    limits = settings.drift
    with open_duckdb(settings) as con:
        for name in (columns.INTERACTIONS, columns.ITEMS, columns.BATCHES):
            lake.view(con, name)
        parameters = {**span, "timezone": settings.timezone}
        bins = con.sql(load("operations/drift_bins"), params=parameters).to_arrow_table()
        used = {name: span[name] for name in ("reference_until", "since", "until")}
        shares = con.sql(load("operations/drift_shares"), params=used).to_arrow_table()
    by_measure = sorted(bins.to_pylist(), key=itemgetter("measure", "bin"))
    found = {name: list(group) for name, group in groupby(by_measure, itemgetter("measure"))}
    for measure in DISTRIBUTIONS:
        group = found.get(measure, [])
        rows, reference = ([int(row[name]) for row in group] for name in ("rows", "reference_rows"))
        is_enough = min(sum(rows), sum(reference)) >= limits.min_rows
        result = stability_index(rows, reference) if is_enough else None
        counts = {"rows": sum(rows), "reference_rows": sum(reference)}
        yield _row(measure, "psi", result, limits, counts)
    for row in shares.to_pylist():
        count = int(row["rows"])
        result = int(row["part"]) / count if count >= limits.min_rows else None
        yield _row(row["measure"], "share", result, limits, {"rows": count, "reference_rows": None})


def _row(
    measure: str, kind: str, result: float | None, limits: Drift, counts: dict[str, Any]
) -> dict[str, Any]:
    warn_at = limits.warn_psi if kind == "psi" else limits.warn_share
    retrain_at: float | None = limits.retrain_psi if kind == "psi" else limits.retrain_share
    if measure == QUARANTINED:
        retrain_at = None  # a training does not help
    verdict = "steady"
    if result is None:
        verdict = "unknown"
    elif retrain_at is not None and result >= retrain_at:
        verdict = "retrain"
    elif result >= warn_at:
        verdict = "warn"
    return {
        "measure": measure,
        "kind": kind,
        "result": None if result is None else round(result, _DIGITS),
        "warn_at": warn_at,
        "retrain_at": retrain_at,
        "verdict": verdict,
        **counts,
    }


def _told(row: dict[str, Any]) -> str:
    limit = row["retrain_at"] if row["verdict"] == "retrain" else row["warn_at"]
    return f"{row['measure']} {row['result']:.2f} (limit {limit:g})"
