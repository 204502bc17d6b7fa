"""The rows of a batch, one by one, against the rules in sql/ingest/, and the batch's profile."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from recsys import columns
from recsys.ingest.contract import ID_TYPES
from recsys.ingest.staging import BLANKS
from sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import duckdb

    from recsys.ingest.staging import Pulled
    from recsys.lake.tables import Lake
    from recsys.settings import Contract

_BATCHES_TO_COMPARE = 3


def classify_rows(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    source: str,
    contract: Contract,
    latest: datetime,
    *,
    compare: bool,
) -> None:
    """Make the tables faulty, held, repeated, rejected and fresh, and the view accepted.

    Args:
        con: holds ``staged``.
        lake: whose interactions and quarantined rows are known already.
        source: the source's name in `quarantine`.
        contract: how long an id may be.
        latest: the latest moment that an interaction may have.
        compare: whether the lake has interactions to compare with.
    """
    con.execute(
        load("ingest/faulty_rows"),
        {"blanks": BLANKS, "max_id_bytes": contract.max_id_bytes, "latest": latest},
    )
    con.execute("create or replace temp table held (seq bigint)")
    con.execute("create or replace temp table before (row varchar, reasons varchar[])")
    if compare:
        span = con.execute('select min("timestamp"), max("timestamp") from staged').fetchall()
        lake.view(con, columns.INTERACTIONS)
        bounds = dict(zip(("oldest", "newest"), span[0], strict=True))
        con.execute(load("ingest/held_rows"), bounds)
    con.execute(load("ingest/suspects"))
    con.execute(load("ingest/repeated_rows"))
    con.execute(load("ingest/rejected_rows"))
    if lake.exists(columns.QUARANTINE):
        lake.view(con, columns.QUARANTINE)
        con.execute(
            "insert into before select row, reasons from quarantine where source = ?",
            [source],
        )
    con.execute(load("ingest/fresh_rejected_rows"))
    con.execute(load("ingest/accepted_rows"))


def profile_batch(
    con: duckdb.DuckDBPyConnection,
    pulled: Pulled,
    source: str,
    batches: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return what the contract looks at, and a fingerprint of what is new.

    Args:
        con: holds what :func:`classify_rows` made.
        pulled: what is in ``staged``.
        source: the source's name in `batches`.
        batches: the accepted batches before this one.
    """
    found = con.sql(load("ingest/profile"))
    figures = dict(zip(found.columns, found.fetchall()[0], strict=True))
    # A batch that held nothing new says nothing about how much is usual.
    counts = [row["rows_in"] for row in batches if row["source"] == source and row["accepted"]]
    change = None
    if len(counts) >= _BATCHES_TO_COMPARE:
        change = _times(figures["row_count"], median(counts))
    return figures | {
        "rejected_share": figures["rejected"] / figures["row_count"],
        "span_days": figures["span_seconds"] / 86400,
        "row_count_change": change,
        "user_id_type": ID_TYPES[pulled.user_type],
        "item_id_type": ID_TYPES[pulled.item_type],
    }


def is_usual_size(
    profile: dict[str, Any], source: str, batches: Sequence[dict[str, Any]], contract: Contract
) -> bool:
    """Say whether a source that holds nothing new still has about as many rows as it used to.

    Being as large as the latest batch that was taken is usual too, since that was accepted.
    """
    most, change = contract.max_row_count_change, profile["row_count_change"]
    if change is None or change <= most:
        return True
    taken = [row for row in batches if row["source"] == source and row["accepted"]]
    latest = max(taken, key=lambda row: row["started"])
    return _times(profile["row_count"], latest["rows_in"]) <= most


def _times(count: float, usual: float) -> float:
    return max(count / usual, usual / count)
