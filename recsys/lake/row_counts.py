"""Row counts: what the accepted batches brought, compared with what `interactions` holds.

A damaged Delta log loses rows without an error: an entry that was emptied adds nothing. Rows that
are appended twice are no error to Delta either. The comparison finds both. It is cheap: files that
hold one batch are counted by their statistics in the log, and of the others one column is read.

Rows that somebody deleted are not lost: either the batch's row of `batches` was deleted with them,
or a DELETE in the log of `interactions` explains them. Since logs are cleaned up, rows so explained
are written to `quality_results` once, and count as deleted from then on.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import pyarrow as pa

from recsys import columns
from recsys.errors import DamagedError
from recsys.lake import commits, object_store
from recsys.lake.check_results import CheckResult, write_check_results
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from deltalake import DeltaTable

_SUBJECT, _SUITE = columns.INTERACTIONS, "row counts"
_STATISTICS = ("num_records", "null_count.batch_id", "min.batch_id", "max.batch_id")
_LISTED = 5
_CLOCKS_DIFFER_BY = 600.0  # seconds


class AcceptedBatch(Protocol):
    """What the comparison needs of an accepted batch: columns of `batches`."""

    @property
    def batch_id(self) -> str:
        """Its key."""

    @property
    def source(self) -> str:
        """Where it came from."""

    @property
    def accepted(self) -> int:
        """How many rows it brought."""

    @property
    def withdrawn(self) -> int | None:
        """How many of them later batches removed, see recsys.ingest.changes."""

    @property
    def finished(self) -> datetime | None:
        """When they were written."""

    @property
    def interactions_version(self) -> int | None:
        """The version of `interactions` that first holds them."""


@dataclass(frozen=True)
class _Row:
    """A row of `batches`, as far as :class:`AcceptedBatch` goes."""

    batch_id: str
    source: str
    accepted: int
    finished: datetime | None
    interactions_version: int | None
    withdrawn: int | None = None


def check_row_counts(
    lake: Lake, version: int | None = None, batches: Collection[AcceptedBatch] | None = None
) -> None:
    """Refuse a lake whose `interactions` lacks rows of an accepted batch, or has some twice.

    Args:
        lake: the lake; one without batches passes.
        version: the version of `interactions` to check; the newest one when not given.
        batches: the accepted batches; read from the lake when not given.

    Raises:
        DamagedError: rows are missing or doubled, or a data file is; the message says of which
            batches, and what to do.
        LakeError: the lake can't be read.
    """
    started = datetime.now(UTC)
    if batches is None:
        batches = accepted_batches(lake)
    if not any(batch.accepted for batch in batches):
        return
    table = lake.open(columns.INTERACTIONS, version)
    recorded, batches = batches, _batches_of(lake, table.version(), batches)
    _require_files(lake, table)
    counts = _count_rows(lake, table)
    differences = _differences(batches, counts)
    if differences:
        batches = _with_unrecorded(table, batches, recorded)
        differences = _differences(batches, counts)
    if not differences:
        return
    known, known_until = _known_deletions(lake)
    deletes = [(time, rows) for time, rows in _deletes(table) if time >= known_until]
    changed = {
        batch: -differences[batch.batch_id] - known.get(batch.batch_id, 0)
        for batch in batches
        if differences.get(batch.batch_id, 0) not in (0, -known.get(batch.batch_id, 0))
    }
    unexplained = [
        batch
        for batch, missing in changed.items()
        if differences[batch.batch_id] > 0 or missing > _rows_deleted_since(deletes, batch)
    ]
    # One DELETE explains as many rows as it removed, of all batches together.
    if sum(max(0, missing) for missing in changed.values()) > sum(rows for _, rows in deletes):
        unexplained = unexplained or list(changed)
    if unexplained:
        raise DamagedError(_report(lake, unexplained, counts))
    if changed:
        deletions = {name: -difference for name, difference in differences.items()}
        _write_deletions(lake, deletions, started)


def record_deletions(lake: Lake, deleted: Mapping[str, int], now: datetime) -> None:
    """Let rows that are deleted on purpose count as deleted from now on.

    Call it right after `check_row_counts`, which explains all earlier ones.

    Args:
        lake: the lake.
        deleted: batch -> rows that are deleted.
        now: when.
    """
    known, _ = _known_deletions(lake)
    _write_deletions(lake, Counter(known) + Counter(deleted), now)


def accepted_batches(lake: Lake) -> list[AcceptedBatch]:
    """Return the accepted batches of a lake; none where it has no `batches`."""
    if not lake.exists(columns.BATCHES):
        return []
    present = lake.schema(columns.BATCHES).names  # a lake that is only read may be older
    names = [field.name for field in fields(_Row) if field.name in present]
    table = lake.rows(columns.BATCHES, [*names, "status"])
    rows = (row for row in table.to_pylist() if row["status"] == "accepted")
    return [_Row(**{name: row[name] for name in names}) for row in rows]


def _differences(batches: Iterable[AcceptedBatch], counts: Mapping[str, int]) -> dict[str, int]:
    """Return batch -> how many rows more than it should have are there, where that is not 0."""
    differences = {
        batch.batch_id: counts[batch.batch_id] - batch.accepted + (batch.withdrawn or 0)
        for batch in batches
    }
    return {batch: difference for batch, difference in differences.items() if difference}


def _with_unrecorded(
    table: DeltaTable, batches: Collection[AcceptedBatch], recorded: Collection[AcceptedBatch]
) -> list[AcceptedBatch]:
    """Return the batches as a killed run left them, which wrote the table and not yet `batches`."""
    newest = max(batch.interactions_version or 0 for batch in recorded)
    known = {batch.batch_id for batch in recorded}
    replaced: set[str] = set()
    withdrawn: Counter[str] = Counter()
    for _, _, note in commits.read(table, max(0, table.version() - newest)):
        if note.get("batch") and note["batch"]["batch_id"] not in known:
            replaced.update(note.get("replaces", ()))
            withdrawn.update(note.get("withdrawn", {}))
    return [
        _Row(
            batch.batch_id,
            batch.source,
            batch.accepted,
            batch.finished,
            batch.interactions_version,
            (batch.withdrawn or 0) + withdrawn[batch.batch_id],
        )
        for batch in batches
        if batch.batch_id not in replaced
    ]


def _batches_of(
    lake: Lake, version: int, batches: Collection[AcceptedBatch]
) -> list[AcceptedBatch]:
    """Return the batches with rows in a version of `interactions`.

    Those of later versions are left out, unless the table has no such version: then its log has
    lost it.
    """
    with_rows = [batch for batch in batches if batch.accepted]
    if all((batch.interactions_version or 0) <= version for batch in with_rows):
        return with_rows
    # A run may have opened the table before another run wrote: ask again.
    newest = Lake(lake.root, lake.storage).version(columns.INTERACTIONS)
    later = range(version + 1, newest + 1)
    return [batch for batch in with_rows if batch.interactions_version not in later]


def _require_files(lake: Lake, table: DeltaTable) -> None:
    """Refuse a table that lacks one of its data files.

    Raises:
        DamagedError: a data file is missing.
    """
    uris = [unquote(uri) for uri in table.file_uris()]
    if lake.is_local:
        missing = [uri for uri in uris if not Path(uri).is_file()]
    else:
        pattern = lake.uri(columns.INTERACTIONS, "*.parquet")
        stored = {Path(one.key).name for one in object_store.find(pattern, lake.storage)}
        missing = [uri for uri in uris if Path(uri).name not in stored]
    if missing:
        raise DamagedError(
            f"{len(missing):,} data files of {lake.uri(columns.INTERACTIONS)} are missing, for "
            f"example {missing[0]}. Put them back from a copy, or restore a version of the table "
            "that does not need them"
        )


def _count_rows(lake: Lake, table: DeltaTable) -> Counter[str]:
    """Return the rows of each batch: from a file's statistics where it holds one batch alone."""
    counts: Counter[str] = Counter()
    mixed = []
    # One row per data file.
    for file in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        rows, nulls, first, last = (file.get(name) for name in _STATISTICS)
        if rows is None or nulls is None or nulls > 0 or first is None or first != last:
            mixed.append(file["path"])
        else:
            counts[first] += rows
    if mixed:
        counts.update(_count_by_reading(lake, table, mixed))
    return counts


def _count_by_reading(lake: Lake, table: DeltaTable, paths: Collection[str]) -> dict[str, int]:
    names = {Path(unquote(path)).name for path in paths}
    with open_duckdb(lake.limits) as con:
        uris = [uri for uri in table.file_uris() if Path(unquote(uri)).name in names]
        relation = f"({lake.select(con, table, uris)})"
        rows = con.execute(
            f"select batch_id, count(*) from {relation} where batch_id is not null group by all"  # noqa: S608 - names are quoted, paths are literals
        ).fetchall()
    return dict(rows)


def _deletes(table: DeltaTable) -> list[tuple[float, int]]:
    """Return (Unix time in seconds, rows removed) of each DELETE in the log."""
    deletes = []
    for commit in table.history():
        if commit["operation"] == "DELETE":
            metrics = commit.get("operationMetrics") or {}
            # delta-rs and Spark write the same figure under different names.
            rows = metrics.get("num_deleted_rows") or metrics.get("numDeletedRows") or 0
            deletes.append((commit.get("timestamp", 0) / 1000, int(rows)))
    return deletes


def _rows_deleted_since(deletes: Iterable[tuple[float, int]], batch: AcceptedBatch) -> int:
    written = batch.finished.timestamp() if batch.finished else 0.0
    return sum(rows for time, rows in deletes if time >= written)


def _known_deletions(lake: Lake) -> tuple[dict[str, int], float]:
    """Return batch -> rows that somebody deleted, as an earlier check wrote them, and its time.

    The time is in Unix seconds, earlier by what clocks of two machines may differ by.
    """
    results = lake.open(columns.QUALITY_RESULTS).to_pyarrow_table(
        columns=["detail", "checked_at"],
        filters=[("subject", "=", _SUBJECT), ("suite", "=", _SUITE)],
    )
    known: dict[str, int] = {}
    until = 0.0
    for row in results.to_pylist():
        known |= json.loads(row["detail"])
        until = row["checked_at"].timestamp() - _CLOCKS_DIFFER_BY
    return known, until


def _write_deletions(lake: Lake, deletions: Mapping[str, int], checked_at: datetime) -> None:
    result = CheckResult(
        suite=_SUITE,
        rule="the rows of every accepted batch are there, once",
        status="passed",
        observed=f"{sum(deletions.values()):,} rows deleted since by DELETE",
        threshold="no row lost or doubled",
        detail=json.dumps(dict(deletions), sort_keys=True),
    )
    write_check_results(lake, _SUBJECT, [result], checked_at)


def _report(lake: Lake, batches: Collection[AcceptedBatch], counts: Mapping[str, int]) -> str:
    lines = [
        f"batch {batch.batch_id} of {batch.source} brought {batch.accepted:,} rows, and "
        f"{counts[batch.batch_id]:,} of them are there"
        for batch in list(batches)[:_LISTED]
    ]
    if len(batches) > _LISTED:
        lines.append(f"{len(batches) - _LISTED:,} more batches differ")
    return (
        f"rows of {lake.uri(columns.INTERACTIONS)} were lost or doubled: {'; '.join(lines)}. "
        "Nothing was written. Restore a version of the table that has each row once; or delete "
        "these batches from `interactions` and from `batches`, and run `recsys ingest` again"
    )
