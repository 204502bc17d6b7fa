"""The catalog is read by SQL: one statement, nothing written, nothing outside the lake."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from recsys.errors import DamagedError, LakeError, MissingError
from recsys.lake import object_store
from recsys.lake.engine import confine, first_line, open_duckdb
from recsys.temporary import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.lake.tables import Lake

CATALOG_FILE = "catalog.duckdb"
_BATCH_ROWS = 10_000
_MISSING = "{} does not exist yet: run `recsys nightly` first"
_UNREADABLE = (
    "{} shows a file that can't be read: {}. If it is gone, `recsys maintain` or the next night "
    "makes the catalog anew"
)
# MULTI is a PIVOT whose values are read off the data.
_READING = {"SELECT", "MULTI"}


def fetch_catalog(lake: Lake, folder: Path) -> Path:
    """Return a local path of the catalog; one on S3 is copied into ``folder``.

    Raises:
        MissingError: there is no catalog yet.
        LakeError: it can't be read.
    """
    uri = lake.uri(CATALOG_FILE)
    path = Path(uri) if lake.is_local else folder / CATALOG_FILE
    try:
        if lake.is_local:
            path.stat()
        else:
            object_store.download(uri, path, lake.storage)
    except (FileNotFoundError, MissingError):
        raise MissingError(_MISSING.format(uri)) from None
    except OSError as error:
        raise LakeError(f"could not read {uri}: {error.strerror}") from error
    return path


def query_catalog(
    lake: Lake, statement: str, parameters: Mapping[str, object] | None = None
) -> pa.Table:
    """Run one statement that reads, and return its rows; see `stream_catalog`."""
    with stream_catalog(lake, statement, parameters) as rows:
        return rows.read_all()


@contextmanager
def stream_catalog(
    lake: Lake,
    statement: str,
    parameters: Mapping[str, object] | None = None,
    *,
    unsafe: bool = False,
) -> Iterator[pa.RecordBatchReader]:
    """Run one statement on the catalog, which is open for reading alone, and give its rows.

    The statement may read the catalog and the files of the lake. It may not write, nor reach other
    files, other databases, the network, extensions or Python's variables: DuckDB itself holds it
    to that.

    Args:
        lake: whose catalog.
        statement: one SELECT.
        parameters: values of its ``$name``.
        unsafe: let it do what DuckDB can; the catalog itself stays open for reading alone.

    Raises:
        MissingError: there is no catalog yet.
        LakeError: it can't be read, or the statement is refused.
    """
    with open_catalog(lake, is_confined=not unsafe) as con:
        if not unsafe:
            _check_reading(con, statement)
        rows = con.sql(statement, params=dict(parameters or {}))
        if rows is None:
            yield pa.table({}).to_reader()
        else:
            yield rows.to_arrow_reader(_BATCH_ROWS)


@contextmanager
def open_catalog(lake: Lake, *, is_confined: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the catalog for reading, confined to the lake's files unless told otherwise.

    Raises:
        MissingError: there is no catalog yet.
        LakeError: it can't be read, the lake was moved, or DuckDB refused a statement of the block.
    """
    with temporary_folder() as folder:
        path = fetch_catalog(lake, folder)
        with explain_refusals(lake), open_duckdb(lake.limits, path, read_only=True) as con:
            lake.let_read(con)  # the views read s3:// without DuckDB's httpfs extension
            _require_own(con, lake)
            if is_confined:
                confine(con, [lake.uri("")])
            yield con


@contextmanager
def explain_refusals(lake: Lake) -> Iterator[None]:
    """Say of which catalog DuckDB refused a statement of the block.

    Raises:
        LakeError: it did.
    """
    uri = lake.uri(CATALOG_FILE)
    try:
        yield
    except DamagedError as error:
        raise DamagedError(_UNREADABLE.format(uri, error)) from error
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException) and lake.root in str(error):
            raise LakeError(_UNREADABLE.format(uri, first_line(error))) from error
        raise LakeError(f"{uri}: DuckDB refused the statement: {error}") from error


def catalog_mark(lake: Lake) -> object:
    """Return what tells a catalog from the one that was published before it.

    Raises:
        MissingError: there is no catalog.
        LakeError: it can't be read.
    """
    uri = lake.uri(CATALOG_FILE)
    try:
        if lake.is_local:
            stat = Path(uri).stat()
            return stat.st_ino, stat.st_mtime_ns, stat.st_size
        (stored,) = object_store.find(uri, lake.storage)
    except (FileNotFoundError, ValueError):
        raise MissingError(_MISSING.format(uri)) from None
    except OSError as error:
        raise LakeError(f"could not read {uri}: {error.strerror}") from error
    return stored


def _require_own(con: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Refuse the catalog of a lake that lay elsewhere: its views would read the files there."""
    try:
        ((root,),) = con.sql("select distinct lake from tables").fetchall()
    except duckdb.BinderException:
        where = "by an earlier release"
    else:
        if root == lake.root:
            return
        where = f"for the lake at {root}, which was moved or copied"
    raise LakeError(
        f"{lake.uri(CATALOG_FILE)} was made {where}. `recsys maintain` or the next night makes the "
        "catalog anew"
    )


def _check_reading(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuse what is not one statement that reads.

    A COPY could write into the lake, whose files may be read, and so could an EXPLAIN ANALYZE of
    one.
    """
    statements = con.extract_statements(statement)
    if len(statements) != 1:
        raise LakeError(f"give one statement; these are {len(statements)}")
    kind = statements[0].type.name
    if kind not in _READING:
        raise LakeError(
            f"this is a statement of the kind {kind}, and only a SELECT is run here. If you trust "
            "it and need it, run it with --unsafe"
        )
