"""Parquet files that several processes write for one table, and that one commit adds to it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from recsys.errors import LakeError
from recsys.lake import object_store
from recsys.lake.faults import explain_delta_errors
from recsys.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recsys.lake.tables import Lake


@dataclass(frozen=True)
class AddedFile:
    """A file that lies in a table's folder; until a commit adds it, no reader sees it.

    Attributes:
        uri: where it lies.
        path: the same, below the table.
        size: in bytes.
        partition: the values of the columns that the table is partitioned by.
        stats: how many rows it has, and the span of each column, as the Delta log writes them.
    """

    uri: str
    path: str
    size: int
    partition: Mapping[str, str]
    stats: str

    def action(self) -> AddAction:
        """Return the file as a commit carries it."""
        now = time.time_ns() // 1_000_000
        return AddAction(self.path, self.size, dict(self.partition), now, True, self.stats)


def write_file(
    lake: Lake, table: str, rows: pa.RecordBatchReader, partition: Mapping[str, str]
) -> AddedFile:
    """Write rows to a new file of a table, without a commit; a name is never given twice.

    Args:
        lake: the lake.
        table: the table.
        rows: without the columns of the partition.
        partition: column -> its value, as text.

    Raises:
        LakeError: it can't be written.
    """
    folder = "/".join(f"{name}={value}" for name, value in partition.items())
    path = f"{folder}/part-{uuid4()}.parquet"
    uri = lake.uri(table, path)
    with temporary_folder() as scratch, explain_delta_errors(f"write {uri}", is_local=True):
        target = Path(uri) if lake.is_local else scratch / "rows.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(target, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)
        size, stats = target.stat().st_size, _stats(target)
        if not lake.is_local:
            object_store.upload(target, uri, lake.storage)
    return AddedFile(uri, path, size, partition, stats)


def require(lake: Lake, table: str, files: Iterable[AddedFile]) -> None:
    """Make sure that files of a table are as they were written.

    Raises:
        LakeError: one is gone, or of another size.
    """
    files = list(files)
    if lake.is_local:
        sizes = {
            file.uri: Path(file.uri).stat().st_size for file in files if Path(file.uri).exists()
        }
    else:
        folders = {file.uri.rpartition("/")[0] + "/" for file in files}
        sizes = {
            stored.uri: stored.size
            for folder in folders
            for stored in object_store.listed(folder, lake.storage)[0]
        }
    for file in files:
        if sizes.get(file.uri) != file.size:
            raise LakeError(
                f"{file.uri} is gone or of another size since it was written; nothing was "
                f"committed to {table}: run again",
                transient=True,
            )


def _stats(file: Path) -> str:
    """Return rows, nulls and spans of a file; spans of numbers and text alone."""
    metadata = pq.read_metadata(file)
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            name, found = column.path_in_schema, column.statistics
            nulls[name] = nulls.get(name, 0) + (found.null_count if found else 0)
            if found and found.has_min_max and isinstance(found.min, int | str):
                lows[name] = min(lows.get(name, found.min), found.min)
                highs[name] = max(highs.get(name, found.max), found.max)
    return json.dumps(
        {
            "numRecords": metadata.num_rows,
            "minValues": lows,
            "maxValues": highs,
            "nullCount": nulls,
        }
    )
