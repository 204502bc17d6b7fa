"""What an ingest writes, in which order, and how the next run finishes or undoes a killed one.

1. `quality_results` and a page of them (`checks/`): how the batch was checked.
2. `quarantine`: its rejected rows.
3. `interactions`: its accepted rows. This append is the commit point; the batch's row of `batches`
   travels in it as a note.
4. `batches`: that row. A batch without accepted rows to append has its row here all the same.

A batch that replaces others takes their rows out of `interactions` in the commit 3, marks them as
replaced in the commit 4, and deletes what they had in `quarantine` last.

A batch that changes rows of others (`on_change`) writes all rows of these batches again in the
commit 3, and counts those that it removed in the commit 4.

A run that is killed before 3 has ingested nothing: :func:`recover` deletes what 1 and 2 wrote. One
that is killed after 3 has ingested its batch: :func:`recover` writes 4 from the note.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import DamagedError
from recsys.ingest.changes import NO_CHANGES
from recsys.ingest.contract import PROFILE, ROWS
from recsys.ingest.selection import have_etags
from recsys.ingest.sources import canonical
from recsys.ingest.staging import as_schema
from recsys.lake.check_results import CheckResult, write_check_results
from recsys.lake.engine import open_duckdb
from recsys.lake.object_store import Stored
from recsys.lake.row_counts import accepted_batches
from sql import literal, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import duckdb

    from recsys.ingest.changes import Changes
    from recsys.ingest.row_checks import BatchProfile
    from recsys.lake.tables import Lake

ACCEPTED, REFUSED, REPLACED = "accepted", "refused", "replaced"


@dataclass(frozen=True)
class Batch:
    """One ingest of a source, as a row of `batches` holds it.

    Attributes:
        batch_id: derived from what the batch holds.
        source: the source's name.
        status: accepted, refused, or replaced by a batch that read its objects again.
        objects: the files or objects that were read.
        rows_in: rows read.
        accepted: rows appended to `interactions`.
        quarantined: rows appended to `quarantine`.
        duplicates: rows that were already in the lake, or that another row of the batch is.
        started: when the ingest began.
        finished: when its rows were written.
        interactions_version: version of `interactions` that holds the rows.
        anonymous: rows without a user, where the source says that there are such.
        replaced_rows: rows of earlier batches that it gave another event or value.
        deleted_rows: rows of earlier batches that it removed.
        withdrawn: rows of its own that later batches removed.
    """

    batch_id: str
    source: str
    status: str
    objects: tuple[Stored, ...]
    rows_in: int
    accepted: int
    quarantined: int
    duplicates: int
    started: datetime
    finished: datetime | None = None
    interactions_version: int | None = None
    anonymous: int | None = None
    replaced_rows: int | None = None
    deleted_rows: int | None = None
    withdrawn: int | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the batch of a row of `batches`."""
        # An earlier release kept local paths as they were spelt.
        objects = (Stored(**stored) for stored in row["objects"] or ())
        same = tuple(replace(stored, key=canonical(stored.key)) for stored in objects)
        return cls(**{**row, "source": canonical(row["source"]), "objects": same})

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> Self:
        """Return the batch of a commit's note, see :meth:`as_note`."""
        times = {name: datetime.fromisoformat(note[name]) for name in ("started", "finished")}
        return cls.from_row({**note, **times})

    def refused(self) -> Self:
        """Return the batch as one that broke its contract: none of its rows is written."""
        return replace(
            self,
            status=REFUSED,
            accepted=0,
            quarantined=0,
            duplicates=0,
            replaced_rows=None,
            deleted_rows=None,
        )

    def as_note(self) -> dict[str, Any]:
        """Return the batch as JSON can hold it."""
        note = asdict(self)
        return note | {name: note[name].isoformat() for name in ("started", "finished")}


def name_batch(
    lake: Lake,
    source: str,
    objects: Sequence[Stored],
    profile: BatchProfile | None,
    batches: Sequence[Batch],
) -> str:
    """Name a batch by what it holds, so that a run after a kill gives it the same name.

    Args:
        lake: where the batch goes.
        source: the source's name.
        objects: what is read.
        profile: what was found in it; None where there is no row.
        batches: the accepted batches so far.
    """
    digest = hashlib.sha256(source.encode())
    for stored in objects:
        digest.update(f"\n{stored.key} {stored.etag}".encode())
    if profile and not have_etags(objects):
        digest.update(profile.fingerprint.encode())
        if not profile.has_new_rows:
            digest.update(f" of {profile.row_count}".encode())
    batch_id = digest.hexdigest()[:24]
    # Rows that were ingested, deleted from the lake, and are still at the source.
    names, number = {batch.batch_id for batch in batches}, 2
    unique = batch_id
    while unique in names or lake.has(columns.INTERACTIONS, unique):
        unique, number = f"{batch_id}-{number}", number + 1
    return unique


# --- writing


def write_source_error(lake: Lake, source: str, error: Exception, now: datetime) -> None:
    """Write why a source could not be read to `quality_results`.

    A lake that has no tables yet has no place for it.
    """
    if not lake.exists(columns.INTERACTIONS):
        return
    result = CheckResult(
        suite="source",
        rule="can be read, has its columns and is not empty",
        status="failed",
        observed=str(error),
        threshold="at least 1 row of the mapped columns",
    )
    write_check_results(lake, source, [result], now)


def write_batch(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    batch: Batch,
    now: datetime,
    replaced: Sequence[Batch] = (),
    changed: Sequence[Batch] = (),
    changes: Changes = NO_CHANGES,
) -> Batch:
    """Write the rows of an accepted batch and then its row of `batches`.

    Args:
        lake: where to.
        con: holds what :func:`recsys.ingest.row_checks.classify_rows` made.
        batch: the batch.
        now: the time of ingestion that its rows carry.
        replaced: the batches whose rows go in the same commit.
        changed: the batches of which rows change in the same commit.
        changes: what changes in them.

    Returns:
        The batch as `batches` holds it.
    """
    stamp: dict[str, Any] = {"batch_id": batch.batch_id, "now": now}
    if batch.quarantined:
        rows = con.sql(load("ingest/quarantine"), params={**stamp, "source": batch.source})
        lake.replace(
            columns.QUARANTINE,
            as_schema(lake.schema(columns.QUARANTINE), rows),
            where=f"batch_id = {literal(batch.batch_id)}",
        )
    batch = replace(batch, finished=datetime.now(UTC))
    query = "ingest/interactions"
    note: dict[str, Any] = {"batch": batch.as_note()}
    if replaced:
        query = "ingest/replacing_interactions"
        note["replaces"] = [one.batch_id for one in replaced]
    elif changed:
        query = "ingest/changing_interactions"
        stamp["batches"] = [one.batch_id for one in changed]
        note["withdrawn"] = dict(changes.by_batch)
    reader = as_schema(lake.schema(columns.INTERACTIONS), con.sql(load(query), params=stamp))
    if rewritten := [*replaced, *changed]:
        where = _among([batch, *rewritten])
        version = lake.replace(columns.INTERACTIONS, reader, where=where, note=note)
    else:
        version = lake.append(columns.INTERACTIONS, reader, transaction=batch.batch_id, note=note)
    batch = replace(batch, interactions_version=version)
    record(lake, batch, _after(rewritten, note))
    if any(one.quarantined for one in replaced):
        lake.delete(columns.QUARANTINE, _among(replaced))
    return batch


def record(lake: Lake, batch: Batch, others: Sequence[Batch] = ()) -> None:
    """Write a batch's row of `batches`, in place of an earlier refusal of the same batch.

    Others, as they are after it, are written in the same commit.
    """
    row = asdict(batch) | {"finished": batch.finished or datetime.now(UTC)}
    table = pa.Table.from_pylist([row, *map(asdict, others)], schema=lake.schema(columns.BATCHES))
    lake.replace(columns.BATCHES, table, where=_among([batch, *others]))


def _after(batches: Iterable[Batch], note: Mapping[str, Any]) -> list[Batch]:
    """Return the batches that a commit of `interactions` changed, as they are after it."""
    withdrawn = note.get("withdrawn", {})
    return [
        replace(one, withdrawn=(one.withdrawn or 0) + withdrawn[one.batch_id])
        if one.batch_id in withdrawn
        else replace(one, status=REPLACED)
        for one in batches
    ]


def _among(batches: Sequence[Batch]) -> str:
    return f"batch_id in ({_listed(batch.batch_id for batch in batches)})"


# --- recovering


def recover(lake: Lake) -> list[Batch]:
    """Finish or undo what a run that was killed has left; without one, change nothing.

    Returns:
        All batches that `batches` holds now.

    Raises:
        DamagedError: `interactions` is gone, but `batches` says that rows were accepted.
    """
    if not lake.exists(columns.INTERACTIONS):
        _require_no_accepted_rows(lake)
        return []
    schema = lake.schema(columns.INTERACTIONS)
    # A table may be missing all the same, in a lake that was copied or made by hand.
    lake.create(schema.field(columns.USER_ID).type, schema.field(columns.ITEM_ID).type)
    own = [field.name for field in fields(Batch)]
    rows = lake.rows(columns.BATCHES, own).to_pylist()
    batches = {row["batch_id"]: Batch.from_row(row) for row in rows}
    decided = {batch.batch_id for batch in batches.values() if batch.status != REFUSED}
    recorded = (batch.interactions_version or 0 for batch in batches.values())
    commits_since = lake.version(columns.INTERACTIONS) - max(recorded, default=0)
    if commits_since > 0:
        for version, _, note in lake.commits(columns.INTERACTIONS, commits_since):
            if not note.get("batch"):
                continue
            batch = replace(Batch.from_note(note["batch"]), interactions_version=version)
            if batch.batch_id not in decided and _has_its_rows(lake, batch):
                names = [*note.get("replaces", ()), *note.get("withdrawn", ())]
                others = _after((batches[one] for one in names if one in batches), note)
                record(lake, batch, others)
                batches |= {one.batch_id: one for one in (batch, *others)}
                decided.add(batch.batch_id)
    accepted = {batch.batch_id for batch in batches.values() if batch.status == ACCEPTED}
    _delete_unrecorded(lake, columns.QUARANTINE, "batch_id", accepted)
    _delete_unrecorded(lake, columns.QUALITY_RESULTS, "subject", batches, (PROFILE, ROWS))
    return list(batches.values())


def _require_no_accepted_rows(lake: Lake) -> None:
    if rows := sum(batch.accepted for batch in accepted_batches(lake)):
        raise DamagedError(
            f"{lake.uri(columns.INTERACTIONS)} is gone, or its log is, but {rows:,} rows were "
            "accepted into it. Nothing was written. Put the folder back from a copy; or, to begin "
            "again, use another lake"
        )


def _has_its_rows(lake: Lake, batch: Batch) -> bool:
    """Say whether a batch's rows are in the lake, not deleted since with its row of `batches`."""
    if not batch.accepted:
        return True
    with open_duckdb(lake.limits) as con:
        lake.view(con, columns.INTERACTIONS)
        row = con.execute(
            "select 1 from interactions where batch_id = ? limit 1", [batch.batch_id]
        ).fetchone()
        return row is not None


def _delete_unrecorded(
    lake: Lake, table: str, column: str, batch_ids: Collection[str], suites: Sequence[str] = ()
) -> None:
    """Delete the rows of a table, among those of ``suites`` if there are any, of other batches."""
    among = pc.field("suite").isin(suites) if suites else None
    unrecorded: set[str] = set()
    for rows in lake.dataset(lake.open(table)).to_batches(columns=[column], filter=among):
        unrecorded.update(pc.unique(rows[column]).to_pylist())
    unrecorded -= set(batch_ids)
    if unrecorded:
        where = f"{column} in ({_listed(sorted(unrecorded))})"
        lake.delete(table, where + (f" and suite in ({_listed(suites)})" if suites else ""))


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(map(literal, texts))
