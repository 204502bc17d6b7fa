"""Where interactions come from: pull rows into a table ``staged``, typed, in source order."""

from __future__ import annotations

import glob
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb

from recsys import columns
from recsys.errors import ConfigurationError, SourceError
from recsys.ingest import text_files
from recsys.ingest.staging import explained, first_line, resolve, rows_in, stage_typed
from recsys.lake import object_store
from recsys.lake.engine import column_types, type_family
from recsys.lake.object_store import Stored
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recsys.ingest.staging import Pulled
    from recsys.settings import ItemSource, ObjectStorage, Source

Kind = Literal["duckdb", "parquet", "csv", "jsonl"]

_ENDINGS: dict[str, Kind] = {".parquet": "parquet", ".pq": "parquet"}
_ENDINGS |= {".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv"}
_ENDINGS |= {f".{name}{zipped}": "jsonl" for name in ("jsonl", "ndjson") for zipped in ("", ".gz")}
_ENDINGS |= {".json": "jsonl", ".json.gz": "jsonl"}


def kind_of(source: Source | ItemSource) -> Kind:
    """Say how a source is read: by table or query, else by the ending of its name."""
    if source.table is not None or source.query is not None:
        if "://" in source.uri:
            raise ConfigurationError(f"{source.uri}: a DuckDB source is a local file")
        return "duckdb"
    name = source.uri.lower()
    for ending in sorted(_ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return _ENDINGS[ending]
    if name.endswith((".duckdb", ".ddb", ".db")):
        raise ConfigurationError(f"{source.uri}: name a table or a query of this DuckDB file")
    raise ConfigurationError(
        f"{source.uri}: can't tell how to read it; its name should end in one of "
        f"{', '.join(sorted(_ENDINGS))}, or give a table or query of a DuckDB file"
    )


def identity(source: Source | ItemSource) -> str:
    """Return the name under which a source's batches and rejected rows are kept."""
    uri = source.uri if "://" in source.uri else os.path.normpath(source.uri)
    if source.table is not None:
        return f"{uri}#{source.table}"
    if source.query is not None:
        return f"{uri}?query={hashlib.sha256(source.query.encode()).hexdigest()[:12]}"
    return uri


def find(source: Source | ItemSource, storage: ObjectStorage) -> list[Stored]:
    """Return the files or objects of a source by name, none of them read; at least one.

    A local file's ETag is its size and modification time. A DuckDB file has none, since its table
    is compared row by row.

    Raises:
        SourceError: nothing is there.
    """
    uri = source.uri
    if kind_of(source) == "duckdb":
        if not Path(uri).is_file():
            raise SourceError(f"no such file: {uri}; check the source's uri")
        return [Stored(os.path.normpath(uri), None, None)]
    if "://" in uri:
        found = object_store.find(uri, storage, raising=SourceError)
    elif Path(uri).is_file():
        found = [_local(uri)]
    else:
        paths = sorted(glob.glob(uri, recursive=True))
        found = [_local(path) for path in paths if Path(path).is_file()]
    if not found:
        what = "nothing matches" if any(sign in uri for sign in "*?[") else "no such file:"
        raise SourceError(f"{what} {uri}; check the source's uri")
    return found


def _local(path: str) -> Stored:
    state = os.stat(path)
    return Stored(os.path.normpath(path), f"{state.st_size:x}-{state.st_mtime_ns:x}", state.st_size)


def fetch(found: Sequence[Stored], folder: Path, storage: ObjectStorage) -> list[Path]:
    """Return a local path for each: itself, or a copy in ``folder`` of what lies on S3."""
    paths = []
    for number, stored in enumerate(found):
        path = Path(stored.key)
        if "://" in stored.key:
            path = folder / f"{number:06d}-{stored.key.rsplit('/', 1)[-1]}"
            object_store.download(stored.key, path, storage, raising=SourceError)
        paths.append(path)
    return paths


def pull(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    found: Sequence[Stored],
    paths: Sequence[Path],
    held: tuple[str, str] | None = None,
) -> Pulled:
    """Fill ``staged`` (see sql/ingest/stage.sql) and ``objects`` (object, first_row, rows).

    Args:
        con: an in-memory connection of our own, see :func:`recsys.lake.tables.connect`.
        source: what to read.
        found: the objects to read, in the order that breaks ties in time.
        paths: where each of them lies locally.
        held: the lake's id types (BIGINT or VARCHAR), when it has rows already.

    Raises:
        SourceError: the source can't be read, lacks a column, or has one of a wrong type.
    """
    kind = kind_of(source)
    with explained(source.uri):
        if kind == "duckdb":
            with attached(con, source, paths[0]) as relation:
                names = resolve(source.columns, list(column_types(con, relation)), identity(source))
                pulled = stage_typed(con, relation, names, held)
            counts = [pulled.rows]
        elif kind == "parquet":
            counts = _parquet_rows(con, found, paths)
            names = _one_shape(con, source, found, paths)
            pulled = stage_typed(con, parquet(paths), names, held)
        else:
            pulled, counts = text_files.pull(con, source, kind, found, paths, held)
    con.execute("create or replace table objects (object varchar, first_row bigint, rows bigint)")
    first = 0
    for stored, rows in zip(found, counts, strict=True):
        if rows:
            con.execute("insert into objects values (?, ?, ?)", [stored.key, first, rows])
        first += rows
    return pulled


# --- DuckDB and Parquet: typed at the source


@contextmanager
def attached(
    con: duckdb.DuckDBPyConnection, source: Source | ItemSource, path: Path
) -> Iterator[str]:
    """Attach a DuckDB file read-only; give the table or query as something to select from."""
    try:
        con.execute(f"attach {literal(str(path))} as recsys_source (read_only)")
    except duckdb.Error as error:
        locked = "could not set lock" in str(error).lower()
        raise SourceError(
            f"{source.uri} can't be opened as a DuckDB file: {first_line(error)}"
            + ("; another process has it open for writing" if locked else ""),
            transient=locked,
        ) from error
    try:
        # A view's or query's own table names are looked up in the source, not among ours.
        con.execute("use recsys_source")
        yield _the_query(con, source) if source.table is None else _the_table(con, source)
    finally:
        con.execute("use memory.main")  # "memory" alone may be a schema of the source
        con.execute("drop view if exists temp.recsys_pulled")
        con.execute("drop view if exists temp.recsys_query")
        con.execute("detach recsys_source")


def _the_table(con: duckdb.DuckDBPyConnection, source: Source | ItemSource) -> str:
    wanted = source.table or ""
    there = con.execute(load("ingest/tables")).fetchall()
    for schema, name in there:
        if wanted in ((name if schema == "main" else None), f"{schema}.{name}"):
            return f"recsys_source.{quote(schema)}.{quote(name)}"
    listed = ", ".join(n if s == "main" else f"{s}.{n}" for s, n in there) or "no table at all"
    raise SourceError(f"{source.uri} has no table {wanted!r}; it has {listed}")


def _the_query(con: duckdb.DuckDBPyConnection, source: Source | ItemSource) -> str:
    query = source.query or ""
    try:
        statements = con.extract_statements(query)
    except duckdb.Error as error:
        raise SourceError(f"the query is not SQL that DuckDB reads: {error}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the query has to be one single SELECT; nothing was run")
    # As a view's definition it may end as it likes, with a semicolon or a comment.
    con.execute(f"create or replace temp view recsys_query as {query}")
    return "temp.recsys_query"


def parquet(paths: Sequence[Path]) -> str:
    """Return Parquet files, in order, as something to select from, in types that hold them all."""
    listed = ", ".join(file_literal(str(path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"


def _parquet_rows(
    con: duckdb.DuckDBPyConnection, found: Sequence[Stored], paths: Sequence[Path]
) -> list[int]:
    rows = []
    for stored, path in zip(found, paths, strict=True):
        with explained(stored.key):
            rows.append(rows_in(con, parquet([path])))
    return rows


def _one_shape(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    found: Sequence[Stored],
    paths: Sequence[Path],
) -> dict[str, str]:
    """Check that each file has the mapped columns, and ids and moments of one type_family of types.

    A column that may be absent is null in the files that lack it.
    """
    first: dict[str, str] = {}
    names: dict[str, str] = {}
    for stored, path in zip(found, paths, strict=True):
        with explained(stored.key):
            kinds = column_types(con, parquet([path]))
        this = resolve(source.columns, list(kinds), stored.key)
        names |= this
        for ours in columns.REQUIRED:
            kind = type_family(kinds[this[ours]])
            if first.setdefault(ours, kind) != kind:
                raise SourceError(
                    f"{stored.key}: column {this[ours]!r} holds {kind}, but {first[ours]} in "
                    f"{found[0].key}; write them alike, or take each by itself with `recsys ingest`"
                )
    return names
