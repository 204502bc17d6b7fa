"""One batch: read what is new at a source, check it, and append it to the lake in one commit.

What is written, in which order, and how a killed run is undone: :mod:`recsys.ingest.commit`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recsys import columns
from recsys.errors import BrokenCheckError, ContractError, EmptySourceError, SourceError
from recsys.ingest import sources
from recsys.ingest.changes import NO_CHANGES, find_changes, objects_to_read
from recsys.ingest.check_page import check_page_address, write_check_page
from recsys.ingest.commit import (
    ACCEPTED,
    Batch,
    name_batch,
    record,
    recover,
    write_batch,
    write_source_error,
)
from recsys.ingest.contract import check_contract
from recsys.ingest.contract_report import breakage_report, refusal_report
from recsys.ingest.ids import ARROW_TYPES, lake_id_types
from recsys.ingest.row_checks import NO_ROWS, classify_rows, is_usual_size, profile_batch
from recsys.ingest.selection import (
    choose_replaced,
    covered,
    have_etags,
    require_rows,
)
from recsys.lake.check_results import write_check_results
from recsys.lake.engine import open_duckdb
from recsys.lake.row_counts import check_row_counts
from recsys.progress import silent
from recsys.temporary import temporary_folder
from sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

    from recsys.ingest.ids import IdTypes
    from recsys.ingest.row_checks import BatchProfile
    from recsys.ingest.staging import StagedBatch
    from recsys.lake.check_results import CheckResult
    from recsys.lake.object_store import Stored
    from recsys.lake.tables import Lake
    from recsys.progress import Progress
    from recsys.settings import Contract, Settings, Source

NOTHING_NEW = "nothing new"
_STEPS = (
    "looking for new data",
    "reading the source",
    "checking rows",
    "checking the contract",
    "writing",
)


@dataclass(frozen=True)
class IngestResult:
    """The outcome of an ingest.

    Attributes:
        batch_id: the accepted batch, or None where there was nothing new.
        status: "accepted" or "nothing new".
        rows_in: rows read.
        accepted: rows appended to `interactions`.
        quarantined: rows appended to `quarantine`.
        duplicates: rows that were already in the lake, or that another row of the batch is.
        anonymous: rows without a user, where the source says that there are such.
        replaced: rows in the lake that got another event or value, see `on_change`.
        deleted: rows in the lake that were removed, see `on_change`.
        objects: files or objects read.
        interactions_version: the newest version of `interactions`, or None where there is no lake.
        seconds: wall time.
        understood: a sentence on the source's columns, for people; empty where nothing was read.
    """

    batch_id: str | None
    status: str
    rows_in: int
    accepted: int
    quarantined: int
    duplicates: int
    anonymous: int
    replaced: int
    deleted: int
    objects: int
    interactions_version: int | None
    seconds: float
    understood: str = ""


def ingest(
    lake: Lake,
    settings: Settings,
    source: Source | None = None,
    *,
    again: bool = False,
    progress: Progress = silent,
    now: datetime | None = None,
) -> IngestResult:
    """Append what is new at a source to the lake. A second ingest changes nothing.

    Args:
        lake: where to.
        settings: the contract, the S3 endpoint, the memory limit of DuckDB.
        source: where from; the configured one when not given.
        again: whether to read all of the source once more, in place of what its earlier batches
            brought, see :mod:`recsys.ingest.selection`.
        progress: told of each step.
        now: the time of ingestion, which no timestamp may exceed by more than the contract allows;
            the clock's when not given.

    Raises:
        ConfigurationError: no source is given or configured.
        SourceError: the source is missing, unreadable, or lacks what the mapping says.
        ContractError: the batch broke its contract; none of its rows was ingested.
        BrokenCheckError: a check did not run; nothing was ingested.
        LakeError: the lake can't be read or written, or has lost or doubled rows.
    """
    started = time.monotonic()
    source = source or settings.required_source()
    now = (now or datetime.now(UTC)).astimezone(UTC)
    with temporary_folder() as folder, open_duckdb(settings) as con:
        sources.confine_source(con, lake, source)
        run = _Ingest(lake, settings, source, con, folder, progress, now)
        status, batch, understood = run.run(again)
    progress("ingest", len(_STEPS), len(_STEPS), "done")
    return IngestResult(
        batch_id=batch.batch_id if status == ACCEPTED and batch else None,
        status=status,
        rows_in=batch.rows_in if batch else 0,
        accepted=batch.accepted if batch else 0,
        quarantined=batch.quarantined if batch else 0,
        duplicates=batch.duplicates if batch else 0,
        anonymous=(batch.anonymous or 0) if batch else 0,
        replaced=(batch.replaced_rows or 0) if batch else 0,
        deleted=(batch.deleted_rows or 0) if batch else 0,
        objects=len(batch.objects) if batch else 0,
        interactions_version=(batch and batch.interactions_version) or _version(lake),
        seconds=time.monotonic() - started,
        understood=understood,
    )


def _version(lake: Lake) -> int | None:
    return lake.version(columns.INTERACTIONS) if lake.exists(columns.INTERACTIONS) else None


@dataclass(frozen=True)
class _Ingest:
    """One ingest and what all of its steps need."""

    lake: Lake
    settings: Settings
    source: Source
    con: duckdb.DuckDBPyConnection
    folder: Path
    progress: Progress
    now: datetime

    def run(self, again: bool) -> tuple[str, Batch | None, str]:
        """Return the outcome, and what was read and understood, if there was something to read."""
        self._say(0)
        batches = [batch for batch in recover(self.lake) if batch.status == ACCEPTED]
        check_row_counts(self.lake, batches=batches)
        objects = found = sources.find(self.source, self.settings.s3)
        replaced: list[Batch] = []
        if again:
            objects, replaced = choose_replaced(self._name, objects, batches)
        else:
            objects = objects_to_read(self.source, self._name, objects, batches)
        if not objects:
            return NOTHING_NEW, None, ""

        self._say(1)
        lake_types = lake_id_types(self.lake)
        staged = self._read(objects, lake_types, is_all=len(objects) == len(found))
        if staged is None:
            empty = self._describe(objects, None, batches)
            record(self.lake, empty)
            return NOTHING_NEW, empty, ""
        require_rows(self._name, staged.rows, replaced)

        self._say(2)
        compare, limits = lake_types is not None, (self._contract, self._latest)
        classify_rows(self.con, self.lake, self.source, *limits, compare=compare, replaced=replaced)
        own = [] if replaced else [one for one in batches if one.source == self._name]
        changes = find_changes(self.con, self.source, own) if lake_types else NO_CHANGES
        # The usual size of a batch says nothing about all of them in one.
        is_whole = replaced or (self.source.on_change == "delete" and have_etags(objects))
        profile = profile_batch(self.con, staged, self._name, [] if is_whole else own, changes)
        batch = self._describe(objects, profile, batches)
        if not self._has_changes(batch, profile, batches, replaced):
            unchanged = replace(batch, accepted=0, quarantined=0)
            return NOTHING_NEW, unchanged, staged.explain()

        self._say(3)
        results = check_contract(
            self.con,
            self._contract,
            profile,
            lake_types,
            self._latest,
            batch.batch_id,
        )
        if lake_types is None:
            self._create_tables(staged.id_types)
        self._enforce_contract(batch, results)

        self._say(4)
        changed = [one for one in own if one.batch_id in changes.by_batch]
        batch = write_batch(self.lake, self.con, batch, self.now, replaced, changed, changes)
        return ACCEPTED, batch, staged.explain()

    def _say(self, step: int) -> None:
        self.progress("ingest", step, len(_STEPS), _STEPS[step])

    @property
    def _name(self) -> str:
        return sources.identity(self.source)

    @property
    def _contract(self) -> Contract:
        return self.settings.contract

    @property
    def _latest(self) -> datetime:
        return self.now + self._contract.max_future

    def _read(
        self, objects: Sequence[Stored], lake_types: IdTypes | None, *, is_all: bool
    ) -> StagedBatch | None:
        """Fill ``staged_rows`` with the rows of the objects.

        New files without rows block nothing where the source has others: then there is no batch.

        Raises:
            SourceError: they can't be read, or hold no row; `quality_results` says so too.
        """
        paths = sources.fetch(objects, self.folder / "objects", self.settings.s3)
        try:
            staged = sources.stage(self.con, self.source, objects, paths, lake_types)
            if not staged.rows:
                raise EmptySourceError(
                    f"{self._name} is empty and was refused: "
                    f"{', '.join(stored.key for stored in objects[:5])} holds 0 rows, the limit is "
                    "at least 1; if it is meant to be empty, leave it out of the source"
                )
        except SourceError as error:
            if isinstance(error, EmptySourceError) and not is_all:
                return None
            write_source_error(self.lake, self._name, error, self.now)
            raise
        return staged

    def _describe(
        self, objects: Sequence[Stored], profile: BatchProfile | None, batches: Sequence[Batch]
    ) -> Batch:
        counted = profile or NO_ROWS
        return Batch(
            batch_id=name_batch(self.lake, self._name, objects, profile, batches),
            source=self._name,
            status=ACCEPTED,
            objects=tuple(objects),
            rows_in=counted.row_count,
            accepted=counted.accepted,
            quarantined=counted.quarantined,
            duplicates=counted.duplicates,
            started=self.now,
            anonymous=counted.anonymous if self.source.drop_null_users else None,
            replaced_rows=None if self.source.on_change == "add" else counted.replaced,
            deleted_rows=counted.deleted if self.source.on_change == "delete" else None,
        )

    def _has_changes(
        self,
        batch: Batch,
        profile: BatchProfile,
        batches: Sequence[Batch],
        replaced: Sequence[Batch],
    ) -> bool:
        """Say whether there is something to check and write."""
        if replaced:
            self.lake.view(self.con, columns.QUARANTINE)
            batch_ids = [one.batch_id for one in replaced]
            changes = self.con.sql(
                load("ingest/replacement_changes"), params={"batches": batch_ids}
            )
            return bool(changes.fetchall()[0][0]) or not covered(replaced, batch.objects)
        return profile.has_new_rows or not self._needs_no_check(batch, profile, batches)

    def _needs_no_check(
        self, batch: Batch, profile: BatchProfile, batches: Sequence[Batch]
    ) -> bool:
        """Record objects without new rows, so that they are not read again.

        A table, which has no ETag, is read every time anyway. It goes on to be checked, and
        refused, where it has lost most of its rows.
        """
        if have_etags(batch.objects):
            record(self.lake, batch)
            return True
        return is_usual_size(profile, self._name, batches, self._contract)

    def _create_tables(self, id_types: IdTypes) -> None:
        arrow_types = ARROW_TYPES[id_types.user_id], ARROW_TYPES[id_types.item_id]
        self.lake.create(*arrow_types)
        self.lake.retype(*arrow_types)

    def _enforce_contract(self, batch: Batch, results: Sequence[CheckResult]) -> None:
        """Write the results of the checks, and refuse a batch that breaks its contract.

        Raises:
            BrokenCheckError: a check did not run.
            ContractError: the batch breaks a rule.
        """
        reasons = self.con.execute(load("ingest/rejection_reasons")).fetchall()
        write_check_results(self.lake, batch.batch_id, results, self.now)
        write_check_page(self.lake, batch, results, reasons)
        statuses = {result.status for result in results}
        if "broken" in statuses:
            raise BrokenCheckError(breakage_report(batch.batch_id, results))
        if "failed" in statuses:
            record(self.lake, batch.refused())
            page = check_page_address(self.lake, batch.batch_id)
            raise ContractError(refusal_report(self.con, batch, results, reasons, page))
