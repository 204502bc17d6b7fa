"""Keep a lake small: expire what is old, merge small files, remove what nothing needs.

1. What a killed ingest, promotion or erasure left is finished, and rows are counted: all this needs
   the old log.
2. Old versions go. This comes first: the catalog that stands was made from the newest versions, and
   reads on whatever happens in here.
3. Old lists (after a summary of each day), reports, results of checks and their pages, models.
4. What killed runs left; then small files are merged, and the log of each table is summed up.

Every step is one commit or deletes what nothing reads, so that a run that is killed loses nothing
and the next one goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.catalog.report.files import remove_reports
from recsys.ingest.check_page import remove_check_pages
from recsys.ingest.commit import recover
from recsys.lake.engine import open_duckdb
from recsys.lake.maintenance import (
    Size,
    compact,
    remove_leftovers,
    remove_old_versions,
    shorten_log,
)
from recsys.lake.row_counts import check_row_counts
from recsys.lake.schemas import TABLES, TIMESTAMP
from recsys.operations.erase import finish_erasures
from recsys.progress import Progress, silent
from recsys.registry.expiry import remove_unneeded_models
from recsys.registry.promotions import record_missing
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recsys.lake.tables import Lake
    from recsys.settings import Maintenance, Settings


@dataclass(frozen=True)
class Upkeep:
    """What one kind of upkeep did.

    Attributes:
        kind: what was looked at.
        entries: days of lists, results of checks, models or tables that were changed.
        files: files that were deleted or merged.
        bytes: what they took.
    """

    kind: str
    entries: int
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class MaintainResult:
    """The result of a maintenance.

    Attributes:
        dry_run: whether nothing was changed.
        upkeep: by kind, in the order in which it was done.
        seconds: wall time.
    """

    dry_run: bool
    upkeep: tuple[Upkeep, ...]
    seconds: float


def maintain(
    lake: Lake,
    settings: Settings,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    progress: Progress = silent,
) -> MaintainResult:
    """Do the upkeep of a lake, or with ``dry_run`` say what it would do and change nothing.

    No list that stands, no count and no history changes. A second run right after finds little.

    Args:
        lake: the lake.
        settings: `settings.maintenance` says what stays for how long.
        dry_run: whether nothing is changed.
        now: what ages are counted from; the clock's when not given.
        progress: told of each step.

    Raises:
        LakeError: the lake can't be read or written, or has lost or doubled rows.
    """
    started = time.perf_counter()
    if lake.exists(columns.INTERACTIONS) and not dry_run:
        recover(lake)
        record_missing(lake)
        check_row_counts(lake)
        finish_erasures(lake)
    work = _Maintenance(lake, settings, dry_run, now or datetime.now(UTC))
    upkeep = []
    for number, (kind, step) in enumerate(_STEPS.items()):
        progress("maintain", number, len(_STEPS), kind)
        entries, size = step(work)
        upkeep.append(Upkeep(kind, entries, size.files, size.bytes))
    progress("maintain", len(_STEPS), len(_STEPS), "done")
    return MaintainResult(dry_run, tuple(upkeep), time.perf_counter() - started)


def report(result: MaintainResult) -> list[str]:
    """Return what a maintenance did, or would do, a line for each kind."""
    done = "would be" if result.dry_run else "were"
    return [
        f"{upkeep.kind}: {upkeep.entries:,} {noun} {done} {verb}"
        + (f", {upkeep.files:,} files of {upkeep.bytes / 1e6:,.1f} MB" if upkeep.files else "")
        for upkeep in result.upkeep
        for noun, verb in [_WORDS[upkeep.kind]]
    ]


@dataclass(frozen=True)
class _Maintenance:
    """One maintenance: each step returns how many entries and files it was about."""

    lake: Lake
    settings: Settings
    dry_run: bool
    now: datetime

    @property
    def _keep(self) -> Maintenance:
        return self.settings.maintenance

    def _each_table(self, work: Callable[[str], Size]) -> tuple[int, Size]:
        return _total(work(name) for name in TABLES if self.lake.exists(name))

    def remove_old_versions(self) -> tuple[int, Size]:
        """Delete data files that no version within the retention needs."""
        retention, dry_run = self._keep.retention, self.dry_run
        return self._each_table(
            lambda name: remove_old_versions(self.lake, name, retention, dry_run=dry_run)
        )

    def expire_lists(self) -> tuple[int, Size]:
        """Sum up each day of old lists in a row of `list_days`, then delete them.

        The newest day stays, however old it is: its lists are those that are served.
        """
        if not self.lake.exists(columns.RECOMMENDATIONS):
            return 0, Size()
        days = self.lake.partitions(columns.RECOMMENDATIONS, "run_date")
        limit = self.settings.run_date(self.now - self._keep.keep_lists).isoformat()
        before = min(limit, max(days, default=limit))
        old = [day for day in days if day < before]
        if old and not self.dry_run:
            with open_duckdb(self.lake.limits) as con:
                self.lake.view(con, columns.RECOMMENDATIONS, name="lists")
                con.execute(f"create temp view recommendations as {load('operations/lists')}")
                rows = con.sql(load("operations/list_days"), params={"before": before})
                _add_list_days(self.lake, rows.to_arrow_table())
            for table in (columns.POPULAR_ITEMS, columns.RECOMMENDATIONS):  # whose days are `old`
                self.lake.delete(table, f"run_date < '{before}'")
        return len(old), Size()

    def expire_reports(self) -> tuple[int, Size]:
        """Delete the reports on days whose lists are expired, but for `latest.html`."""
        before = self.settings.run_date(self.now - self._keep.keep_lists)
        return _total(remove_reports(self.lake, before, dry_run=self.dry_run).values())

    def expire_quality_results(self) -> tuple[int, Size]:
        """Delete old results of checks; those of the row counts stay, which need them."""
        if not self.lake.exists(columns.QUALITY_RESULTS):
            return 0, Size()
        since = self.now - self._keep.keep_quality_results
        results = self.lake.rows(columns.QUALITY_RESULTS, ["subject", "checked_at"])
        old = results.filter(
            pc.and_(
                pc.less(results["checked_at"], pa.scalar(since, TIMESTAMP)),
                pc.not_equal(results["subject"], columns.INTERACTIONS),
            )
        )
        if len(old) and not self.dry_run:  # all results of a subject are of one time
            subjects = ", ".join(map(literal, old["subject"].unique().to_pylist()))
            self.lake.delete(columns.QUALITY_RESULTS, f"subject in ({subjects})")
        return len(old), Size()

    def remove_check_pages(self) -> tuple[int, Size]:
        """Delete the pages of batches that have no results in `quality_results` any more."""
        if not self.lake.exists(columns.QUALITY_RESULTS):
            return 0, Size()
        subjects = self.lake.rows(columns.QUALITY_RESULTS, ["subject"])["subject"]
        return _total(
            remove_check_pages(self.lake, set(subjects.to_pylist()), dry_run=self.dry_run).values()
        )

    def remove_models(self) -> tuple[int, Size]:
        """Delete the files of models that nothing needs."""
        since = self.now - self._keep.keep_models
        return _total(remove_unneeded_models(self.lake, since, dry_run=self.dry_run).values())

    def remove_leftovers(self) -> tuple[int, Size]:
        """Delete what killed runs left."""
        return _total(remove_leftovers(self.lake, dry_run=self.dry_run).values())

    def merge_files(self) -> tuple[int, Size]:
        """Merge small files, and sum up the log of each table."""

        def merge(name: str) -> Size:
            merged = compact(self.lake, name, dry_run=self.dry_run)
            if not self.dry_run:
                shorten_log(self.lake, name, self._keep.retention)
            return merged

        return self._each_table(merge)


_STEPS: dict[str, Callable[[_Maintenance], tuple[int, Size]]] = {
    "old versions": _Maintenance.remove_old_versions,
    "lists": _Maintenance.expire_lists,
    "reports": _Maintenance.expire_reports,
    "quality results": _Maintenance.expire_quality_results,
    "check pages": _Maintenance.remove_check_pages,
    "models": _Maintenance.remove_models,
    "leftovers": _Maintenance.remove_leftovers,
    "small files": _Maintenance.merge_files,
}

_WORDS = {
    "old versions": ("tables", "cleared of files that no version needs"),
    "lists": ("days", "summed up and deleted"),
    "reports": ("reports", "deleted"),
    "quality results": ("results", "deleted"),
    "check pages": ("batches", "deleted"),
    "models": ("models", "deleted, but for their rows"),
    "leftovers": ("leftovers of killed runs", "deleted"),
    "small files": ("tables", "merged"),
}


def _total(sizes: Iterable[Size]) -> tuple[int, Size]:
    """Return how many of the sizes are not nothing, and all together."""
    some = [size for size in sizes if size.files]
    return len(some), sum(some, Size())


def _add_list_days(lake: Lake, rows: pa.Table) -> None:
    """Add rows to `list_days`, in place of those of the same days and editions."""
    schema = lake.schema(columns.LIST_DAYS)
    keys = {(row["run_date"], row["edition"]) for row in rows.to_pylist()}
    others = [
        row
        for row in lake.rows(columns.LIST_DAYS).to_pylist()
        if (row["run_date"], row["edition"]) not in keys
    ]
    table = pa.Table.from_pylist([*others, *rows.to_pylist()], schema=schema)
    lake.replace(columns.LIST_DAYS, table)
