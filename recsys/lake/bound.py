"""Which interactions lists may be made from: those that had happened, and were known, by then."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from sql import literal

if TYPE_CHECKING:
    from datetime import date

    import duckdb
    from deltalake import DeltaTable

    from recsys.lake.tables import Lake
    from recsys.settings import AsOf, Settings

_MINUTES = "%Y-%m-%d %H:%M"
_STORED = "stored_interactions"
# The statistics in a Delta log may be cut off to milliseconds.
_CUT_OFF = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Bound:
    """Bounds of `interactions`.

    Attributes:
        until: rows with a timestamp before it, UTC.
        as_of: rows ingested before it, UTC, and those of which that is not known; None for all.
    """

    until: datetime
    as_of: datetime | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        run_date: date,
        as_of: AsOf | None = None,
        now: datetime | None = None,
    ) -> Bound:
        """Return what lists for a run_date may know.

        That is what happened before the day's end in the settings' time zone. Where the day is
        over, it is also only what had been ingested by then.

        Args:
            settings: the time zone.
            run_date: the day.
            as_of: another bound of the ingestion; "now" for none.
            now: when the run began; this moment when not given.
        """
        until = settings.end_of(run_date)
        if as_of == "now":
            return cls(until)
        if as_of is not None:
            return cls(until, settings.in_zone(as_of).astimezone(UTC))
        return cls(until, until if until <= (now or datetime.now(UTC)) else None)

    def __str__(self) -> str:
        """Say what may be known."""
        told = f"from what happened before {self.until:{_MINUTES}} UTC"
        return f"{told}, ingested before {self.as_of:{_MINUTES}} UTC" if self.as_of else told

    @property
    def predicate(self) -> str:
        """The bounds as a condition in SQL."""
        happened = f'"timestamp" < {_moment(self.until)}'
        if self.as_of is None:
            return happened
        return f"{happened} and coalesce(ingested_at < {_moment(self.as_of)}, true)"

    def covers(self, table: DeltaTable) -> bool:
        """Say whether the statistics in the table's log prove that no row lies beyond."""
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        return all(
            file.get("num_records") == 0
            or (
                _is_before(file.get("max.timestamp"), self.until)
                and (self.as_of is None or _is_before(file.get("max.ingested_at"), self.as_of))
            )
            for file in files
        )

    def view(self, lake: Lake, con: duckdb.DuckDBPyConnection, version: int) -> None:
        """Give ``con`` a view ``interactions`` of the rows within, at a version of the table."""
        if self.covers(lake.open(columns.INTERACTIONS, version)):
            lake.view(con, columns.INTERACTIONS, version)
            return
        lake.view(con, columns.INTERACTIONS, version, _STORED)
        con.execute(
            f"create or replace temp view {columns.INTERACTIONS} as "
            f"from {_STORED} where {self.predicate}"
        )


def _moment(time: datetime) -> str:
    return f"timestamptz {literal(time.isoformat())}"


def _is_before(newest: datetime | None, bound: datetime) -> bool:
    return newest is not None and newest + _CUT_OFF < bound
