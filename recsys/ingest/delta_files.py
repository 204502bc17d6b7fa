"""A Delta table as a source: the files of its newest version, and not those of deleted rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from recsys.errors import LakeError, SourceError
from recsys.lake import object_store
from recsys.lake.commits import unread_features
from recsys.lake.faults import explain_delta_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recsys.lake.object_store import Stored
    from recsys.settings import ObjectStorage

_LOG = "_delta_log"


def is_table(uri: str) -> bool:
    """Say whether a source is a Delta table: a local folder by its log, one on S3 by its name.

    On S3 that is a name without an ending, which no file or pattern has.
    """
    if "://" in uri:
        return not any(sign in uri for sign in "*?[") and "." not in uri.rstrip("/").split("/")[-1]
    return (Path(uri) / _LOG).is_dir()


def objects(uri: str, storage: ObjectStorage) -> list[Stored]:
    """Return the objects of a table on S3 that its newest version holds.

    Raises:
        SourceError: as `files` does.
    """
    held = set(files(uri, storage))
    found = object_store.find(f"{uri.rstrip('/')}/**", storage, raising=SourceError)
    return [stored for stored in found if stored.key in held]


def files(uri: str, storage: ObjectStorage) -> list[str]:
    """Return the paths of the files that a table's newest version holds.

    Raises:
        SourceError: the table can't be read, or has a feature that its files alone don't show.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        if "://" in uri:
            with explain_delta_errors(f"read {uri}", is_local=False):
                table = DeltaTable(uri, storage_options=storage.delta_options())
        else:
            table = DeltaTable(uri)
        unknown = unread_features(table)
        paths = sorted(unquote(path) for path in table.file_uris())
    except (LakeError, DeltaError, OSError, ValueError) as error:
        is_transient = isinstance(error, LakeError) and error.transient
        raise SourceError(
            f"{uri} can't be read as a Delta table: {error}", transient=is_transient
        ) from error
    if unknown:
        raise SourceError(
            f"{uri} is a Delta table with {', '.join(unknown)}, which an ingest does not "
            "read; write what it holds to plain Parquet files, or to a DuckDB file"
        )
    if not paths:
        raise SourceError(f"{uri} is a Delta table without rows")
    return paths


def refuse_files_of_tables(keys: Sequence[str], uri: str, storage: ObjectStorage) -> None:
    """Refuse a pattern over the files of a Delta table, some of which hold deleted rows.

    Raises:
        SourceError: a file lies in the folder of a table.
    """
    if "://" in uri:
        # A part of a table, such as day=2026-01-02, has no log of its own.
        parts = {key.partition("=")[0].rpartition("/")[0] for key in keys}
        tables = [each for each in sorted(parts) if object_store.find(f"{each}/{_LOG}/*", storage)]
    else:
        folders = {parent for key in keys for parent in Path(key).parents}
        tables = [str(folder) for folder in sorted(folders) if (folder / _LOG).is_dir()]
    if tables:
        raise SourceError(
            f"{uri} matches files of the Delta table {tables[0]}, which may hold rows that were "
            f"deleted from it; give the table itself: uri = {tables[0]!r}"
        )
