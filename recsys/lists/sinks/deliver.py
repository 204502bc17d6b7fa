"""Deliver the lists that are served to a sink, exactly once, and make up for what it missed.

What was delivered is known at the sink alone, by its stamps. A delivery that was killed left the
previous lists in place, or the new ones with their stamp; the next one does the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from recsys import columns
from recsys.lake.engine import open_duckdb
from recsys.lists.editions import EditionRow, all_editions, current_of, of_date
from recsys.lists.sinks.duckdb_file import DuckDBTarget
from recsys.lists.sinks.parquet import ParquetTarget
from recsys.lists.sinks.target import Stamp, Target, measure, read_files
from recsys.progress import Progress, silent
from recsys.temporary import temporary_folder
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from recsys.lake.tables import Lake
    from recsys.settings import Settings, Sink

LOCK = ".sinks"
"""What keeps two deliveries of one lake apart, so that the later one reads what is served then."""
_PART_SIZE = "256MB"


@dataclass(frozen=True)
class DeliverResult:
    """The result of a delivery to one sink.

    Attributes:
        sink: its name.
        delivered: the run_dates that it got.
        removed: the run_dates whose lists were withdrawn, and which it lost.
        unchanged: how many run_dates it had already.
        rows: rows that it got.
        seconds: wall time.
    """

    sink: str
    delivered: list[date]
    removed: list[date]
    unchanged: int
    rows: int
    seconds: float

    def __str__(self) -> str:
        """Say what the sink got."""
        days = ", ".join(map(str, self.delivered)) or "nothing new"
        text = f"{self.sink} got {days}: {self.rows:,} rows in {self.seconds:.0f} s"
        removed = f"; withdrawn there: {', '.join(map(str, self.removed))}" if self.removed else ""
        return f"{text}{removed}"


def deliver(
    lake: Lake,
    settings: Settings,
    sink: Sink,
    days: Collection[date] = (),
    *,
    run_id: str,
    progress: Progress = silent,
) -> DeliverResult:
    """Bring a sink to what the lake serves.

    A new sink gets the newest run_date. After that it gets every run_date since its first one, and
    the current edition where that has changed. Of a run_date whose rows the lake has expired,
    the sink keeps what it has.

    Args:
        lake: the lake. Its write lock is not needed.
        settings: the machine's limits, and the S3 endpoint.
        sink: where to.
        days: run_dates that it gets in any case; of these the rows at the sink are read.
        run_id: of this run, for those that wait.
        progress: called as the work goes on.

    Raises:
        RecsysError: the lake or the sink can't be read or written.
    """
    started = time.perf_counter()
    target = target_of(sink, settings)
    delivered, removed, unchanged, rows = [], [], 0, 0
    with lake.side_lock(LOCK, f"delivery of {run_id}"):
        lake.refresh()
        served, withdrawn = _lists(lake)
        stamps = target.stamps([*served, *withdrawn])
        due = _due(served, stamps, days)
        for nth, day in enumerate(due):
            progress(f"deliver to {sink.name}", nth, len(due), str(day))
            got = _bring(lake, settings, target, *served[day], stamps.get(day), day in days)
            unchanged += got is None
            if got is not None:
                delivered.append(day)
                rows += got
        progress(f"deliver to {sink.name}", len(due), len(due), "")
        for day in sorted(withdrawn & stamps.keys()):
            target.remove(day)
            removed.append(day)
    seconds = time.perf_counter() - started
    return DeliverResult(sink.name, delivered, removed, unchanged, rows, seconds)


def target_of(sink: Sink, settings: Settings) -> Target:
    """Return what writes to a sink."""
    if sink.kind == "parquet":
        return ParquetTarget(sink, settings)
    if sink.kind == "duckdb":
        return DuckDBTarget(sink, settings)
    from recsys.lists.sinks.postgres import PostgresTarget  # here: its driver takes time to import

    return PostgresTarget(sink, settings)


def _lists(lake: Lake) -> tuple[dict[date, tuple[EditionRow, int]], set[date]]:
    """Return run_date -> the edition that is served and the day's rows; and what was withdrawn."""
    if not lake.exists(columns.RECOMMENDATIONS):
        return {}, set()
    counts: dict[date, int] = {}
    files = pa.table(lake.open(columns.RECOMMENDATIONS).get_add_actions(flatten=True))
    for file in files.select(["partition.run_date", "num_records"]).to_pylist():
        day = date.fromisoformat(str(file["partition.run_date"]))
        counts[day] = counts.get(day, 0) + (file["num_records"] or 0)
    by_day: dict[date, list[EditionRow]] = {}
    for row in all_editions(lake):
        by_day.setdefault(row.run_date, []).append(row)
    current = {day: current_of(rows) for day, rows in by_day.items()}
    served = {
        day: (row, counts[day]) for day, row in current.items() if row is not None and day in counts
    }
    without_rows = {day for day, row in current.items() if row is not None and day not in counts}
    if without_rows:  # they have expired, or all of their users were erased
        expired = lake.rows(columns.LIST_DAYS, ["run_date"]).to_pylist()
        without_rows -= {row["run_date"] for row in expired}
    return served, without_rows | {day for day, row in current.items() if row is None}


def _due(
    served: dict[date, tuple[EditionRow, int]],
    stamps: dict[date, Stamp],
    days: Collection[date],
) -> list[date]:
    """Return the run_dates that a sink has to have, oldest first."""
    first = min(stamps, default=max(served, default=date.max))
    return sorted(day for day in served if day >= first or day in days)


def _bring(
    lake: Lake,
    settings: Settings,
    target: Target,
    edition: EditionRow,
    lake_rows: int,
    stamp: Stamp | None,
    look: bool,
) -> int | None:
    """Bring a sink to an edition; return the rows that it got, None where it had them.

    Args:
        lake: the lake.
        settings: the machine's limits.
        target: the sink.
        edition: the one that is served.
        lake_rows: rows of the run_date in the lake, of all editions.
        stamp: what the sink says that it has of the run_date.
        look: whether its rows are read, too.
    """
    is_new = stamp is None or not stamp.is_of(edition, lake_rows)
    if not is_new and not look:
        return None
    with temporary_folder() as folder:
        files, wanted = _stage(lake, settings, edition, lake_rows, folder / "lists")
        same = stamp is not None and stamp.contents == wanted.contents
        if same and target.measure(edition.run_date) == wanted.contents:
            if is_new:
                target.restamp(wanted)
            return None
        target.replace(wanted, files)
    return wanted.rows


def _stage(
    lake: Lake, settings: Settings, edition: EditionRow, lake_rows: int, folder: Path
) -> tuple[list[Path], Stamp]:
    """Write the lists of an edition to Parquet files; return them, and their stamp."""
    with open_duckdb(settings) as con:
        lake.view(con, columns.RECOMMENDATIONS, where=of_date(edition.run_date))
        where = {"run_date": edition.run_date, "edition": edition.edition}
        options = f"format parquet, compression zstd, file_size_bytes '{_PART_SIZE}'"
        con.execute(
            f"copy ({load('lists/delivered_lists')}) to {literal(str(folder))} ({options})", where
        )
        files = sorted(folder.glob("*.parquet"))
        contents = measure(con, read_files(files))
    stamp = Stamp(
        run_date=edition.run_date,
        edition=edition.edition,
        rows=contents.rows,
        hash=contents.hash,
        lake_rows=lake_rows,
        run_id=edition.run_id,
        delivered_at=datetime.now(UTC),
    )
    return files, stamp
