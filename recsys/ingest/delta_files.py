"""A Delta table as a source: the files of its newest version, and not those of deleted rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from recsys.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

# What a reader of plain Parquet files may leave out of account.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
_LOG = "_delta_log"


def is_table(uri: str) -> bool:
    """Say whether a local folder is a Delta table."""
    return "://" not in uri and (Path(uri) / _LOG).is_dir()


def files(uri: str) -> list[str]:
    """Return the paths of the files that a table's newest version holds.

    Raises:
        SourceError: the table can't be read, or has a feature that its files alone don't show.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(uri)
        features = set(table.protocol().reader_features or ())
        paths = sorted(unquote(path) for path in table.file_uris())
    except (DeltaError, OSError, ValueError) as error:
        raise SourceError(f"{uri} can't be read as a Delta table: {error}") from error
    if unknown := features - _HARMLESS:
        raise SourceError(
            f"{uri} is a Delta table with {', '.join(sorted(unknown))}, which an ingest does not "
            "read; write what it holds to plain Parquet files, or to a DuckDB file"
        )
    if not paths:
        raise SourceError(f"{uri} is a Delta table without rows")
    return paths


def refuse_files_of_tables(keys: Sequence[str], uri: str) -> None:
    """Refuse a pattern over the files of a Delta table, some of which hold deleted rows.

    Raises:
        SourceError: a file lies in the folder of a table.
    """
    folders = {parent for key in keys if "://" not in key for parent in Path(key).parents}
    for folder in sorted(folders):
        if (folder / _LOG).is_dir():
            raise SourceError(
                f"{uri} matches files of the Delta table {folder}, which may hold rows that were "
                f"deleted from it; give the table itself: uri = {str(folder)!r}"
            )
