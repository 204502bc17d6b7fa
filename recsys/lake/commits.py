"""Commits of a Delta table: the note and the transaction that travel in one, and checkpoints."""

from __future__ import annotations

import glob
import json
import secrets
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
    write_deltalake,
)

from recsys.lake import object_store
from recsys.process import this_process
from recsys.temporary import sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.settings import ObjectStorage

_NOTE = "recsys"  # a key among a commit's metadata
WRITER = "recsys-writer"
"""A key among the metadata of each of our commits, and a name among its transactions."""
# What a reader of plain Parquet files may leave out of account.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
CHECKPOINT_EVERY = 5
"""Commits. To open a table takes 2 requests for each commit since, and 4 for the checkpoint."""
# Checkpoints are made here, more often; old logs are removed by recsys.lake.maintenance.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def unread_features(table: DeltaTable) -> list[str]:
    """Return the features of a table that its Parquet files, which are read here, don't show.

    Of a deletion vector's rows, for one, they don't say that these are gone.
    """
    protocol = table.protocol()
    features = set(protocol.reader_features or ()) - _HARMLESS
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    return sorted(features)


def properties(
    note: Mapping[str, Any] | None = None, transaction: str | None = None
) -> CommitProperties:
    """Return what one commit carries: a note, the name of what it does once, and that it is ours.

    Of two commits that carry one transaction, and were made from one version, Delta refuses the
    second. All of ours carry `recsys-writer`, but for those that merge files: so no run commits
    what it has decided by rows that another run has changed since.
    """
    now = time.time_ns()
    metadata = {WRITER: f"{this_process()} {now} {secrets.token_hex(4)}"}
    metadata |= {_NOTE: json.dumps(note)} if note else {}
    transactions = [Transaction(WRITER, now // 1000)]
    if transaction:
        transactions.append(Transaction(transaction, 1))
    return CommitProperties(custom_metadata=metadata, app_transactions=transactions)


def has_commit(table: DeltaTable, after: int, carried: CommitProperties) -> bool:
    """Say whether one of the commits after a version is the one that carries these properties."""
    writer = (carried.custom_metadata or {})[WRITER]
    count = table.version() - after
    return count > 0 and any(commit.get(WRITER) == writer for commit in table.history(count))


def write(
    table: DeltaTable,
    rows: pa.RecordBatchReader | pa.Table,
    carried: CommitProperties,
    **options: Any,
) -> None:
    """Write rows in one commit; ``options`` are those of `write_deltalake`."""
    write_deltalake(
        table,
        rows,
        commit_properties=carried,
        post_commithook_properties=NO_HOOKS,
        **options,
    )


def read(table: DeltaTable, limit: int | None) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (version, operation, note), newest first; few are read where few are asked for."""
    known, count = 0, 1
    while limit is None or known < limit:
        history = table.history(count if limit is None else min(count, limit))
        for commit in history[known:]:
            yield commit["version"], commit["operation"], json.loads(commit.get(_NOTE, "{}"))
        if len(history) < count:
            return
        known, count = len(history), 4 * count


def checkpoint_when_due(table: DeltaTable, uri: str, before: int, storage: ObjectStorage) -> None:
    """Make a checkpoint where enough commits came since the newest one.

    Maintenance makes checkpoints too. Where they are is asked at every fifth version only, since it
    takes a request on S3; which versions these are depends on the table, so that a night does not
    write the checkpoints of all tables.

    Args:
        table: as it is after a write.
        uri: where it lies.
        before: its version before the write.
        storage: the S3 endpoint, for a table on S3.
    """
    after, shift = table.version(), zlib.crc32(Path(uri).name.encode()) % CHECKPOINT_EVERY
    if (after + shift) // CHECKPOINT_EVERY == (before + shift) // CHECKPOINT_EVERY:
        return
    if after - _newest_checkpoint(uri, storage) >= CHECKPOINT_EVERY:
        create_checkpoint(table, uri, storage)


def _newest_checkpoint(uri: str, storage: ObjectStorage) -> int:
    """Return the version of a table's newest checkpoint; -1 where there is none."""
    pattern = f"{uri}/_delta_log/*.checkpoint.parquet"
    if "://" in uri:
        files = [stored.key for stored in object_store.find(pattern, storage)]
    else:
        files = glob.glob(pattern)
    return max((int(Path(file).name.partition(".")[0]) for file in files), default=-1)


def create_checkpoint(table: DeltaTable, uri: str, storage: ObjectStorage) -> None:
    """Sum the log up in one file, so that opening the table does not read ever more of them.

    On a disk it is there for good before the log that it sums up may be removed.
    """
    table.create_checkpoint()
    if "://" in uri:
        _describe_checkpoint(f"{uri}/_delta_log", table.version(), storage)
    else:
        log = Path(uri, "_delta_log")
        files = log.glob(f"{table.version():020}.checkpoint*.parquet")
        for path in (*files, log / "_last_checkpoint", log):
            sync(path)


def _describe_checkpoint(log: str, version: int, storage: ObjectStorage) -> None:
    """Write beside a checkpoint on S3 what readers look up in it otherwise: 4 requests, not 11.

    The Delta protocol knows both: the checksum file of a version has the table's metadata, and
    `_last_checkpoint` may have the checkpoint's columns. `sidecar`, which a checkpoint of one file
    never has a value in, is left out, so that nobody looks for it.
    """
    content = object_store.get(f"{log}/{version:020d}.checkpoint.parquet", storage)
    checkpoint = pq.read_table(pa.BufferReader(content))
    first = {
        name: next(value for value in checkpoint[name].to_pylist(maps_as_pydicts="strict") if value)
        for name in ("protocol", "metaData")
    }
    sizes = checkpoint["add"].combine_chunks().field("size").drop_null()
    checksum = {
        "tableSizeBytes": pc.sum(sizes).as_py() or 0,
        "numFiles": len(sizes),
        "numMetadata": 1,
        "numProtocol": 1,
        "metadata": _without_nulls(first["metaData"]),
        "protocol": _without_nulls(first["protocol"]),
    }
    object_store.put(f"{log}/{version:020d}.crc", json.dumps(checksum).encode(), storage)
    newest = json.loads(object_store.get(f"{log}/_last_checkpoint", storage))
    if newest["version"] == version:
        schema = pa.schema(field for field in checkpoint.schema if field.name != "sidecar")
        newest["checkpointSchema"] = json.loads(Schema.from_arrow(schema).to_json())
        object_store.put(f"{log}/_last_checkpoint", json.dumps(newest).encode(), storage)


def remove_old_checksums(uri: str, storage: ObjectStorage) -> None:
    """Delete a table's checksum files on S3 but for the newest; Delta's own clean-up keeps them."""
    if "://" in uri:
        found = object_store.find(f"{uri}/_delta_log/*.crc", storage)
        object_store.delete([one.key for one in found[:-1]], storage)


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
