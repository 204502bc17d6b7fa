"""Where interactions come from: files, objects on S3, or a DuckDB database.

It is a little longer than other files: finding, fetching and typing a source are one path.
"""

from __future__ import annotations

import glob
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import columns
from recsys.errors import ConfigurationError, SourceError
from recsys.ingest import delta_files, text_files
from recsys.ingest.column_map import ColumnMap, resolve
from recsys.ingest.ids import NO_TYPE
from recsys.ingest.staging import count_rows, explained, stage_typed
from recsys.lake import object_store
from recsys.lake.engine import clean_up, column_types, confine, first_line, type_family
from recsys.lake.object_store import Stored
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recsys.ingest.ids import IdTypes
    from recsys.ingest.staging import StagedBatch
    from recsys.lake.tables import Lake
    from recsys.settings import ItemSource, ObjectStorage, Source

Kind = Literal["duckdb", "delta", "parquet", "csv", "jsonl"]

_HIDDEN = ("_", ".")
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
    if delta_files.is_table(source.uri):
        return "delta"
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
    """Return the name that a source has in `batches` and `quarantine`, however it is spelt."""
    uri = canonical(source.uri)
    if source.table is not None:
        return f"{uri}#{source.table}"
    if source.query is not None:
        return f"{uri}?query={hashlib.sha256(source.query.encode()).hexdigest()[:12]}"
    return uri


def canonical(uri: str) -> str:
    """Return the one spelling of a local path: absolute, without symbolic links.

    A link to a file of another ending keeps its name, since that says how to read the file.
    """
    if "://" in uri:
        return uri.rstrip("/")
    path = os.path.realpath(uri)
    if os.path.splitext(path)[1].lower() == os.path.splitext(uri)[1].lower():
        return path
    return os.path.join(os.path.realpath(os.path.dirname(uri)), os.path.basename(uri))


def find(source: Source | ItemSource, storage: ObjectStorage) -> list[Stored]:
    """Return the files or objects of a source by name, none of them read; at least one.

    A local file's ETag is its size and modification time. A DuckDB file has none, since its table
    is compared row by row.

    Raises:
        SourceError: there is none.
    """
    uri = source.uri
    kind = kind_of(source)
    if kind == "duckdb":
        if not Path(uri).is_file():
            raise SourceError(f"no such file: {uri}; check the source's uri")
        return [Stored(canonical(uri), None, None)]
    if kind == "delta":
        if "://" in uri:
            objects = delta_files.objects(uri, storage)
        else:
            objects = [_local(path) for path in delta_files.files(uri, storage)]
    elif "://" in uri:
        objects = object_store.find(uri, storage, raising=SourceError)
    elif Path(uri).is_file():
        objects = [_local(uri)]
    else:
        paths = sorted(glob.glob(uri, recursive=True))
        objects = [_local(path) for path in paths if Path(path).is_file()]
    if kind != "delta":
        objects = [stored for stored in objects if not _is_leftover(stored.key, uri)]
        delta_files.refuse_files_of_tables([stored.key for stored in objects], uri, storage)
    if not objects:
        problem = "nothing matches" if any(sign in uri for sign in "*?[") else "no such file:"
        raise SourceError(f"{problem} {uri}; check the source's uri")
    return list({stored.key: stored for stored in objects}.values())  # two links to one file


def _is_leftover(key: str, uri: str) -> bool:
    """Say whether a pattern found a file that a writer hides, such as one under _temporary.

    Names that begin with _ or . are hidden, as for Spark, where the pattern does not ask for them.
    """
    parts = uri.split("/")
    wild = [number for number, part in enumerate(parts) if any(sign in part for sign in "*?[")]
    if not wild or any(part.startswith(_HIDDEN) for part in parts[wild[0] :]):
        return False
    folder = canonical("/".join(parts[: wild[0]]) or ".")
    inside = key.removeprefix(folder) if key.startswith(folder) else os.path.basename(key)
    return any(part.startswith(_HIDDEN) for part in inside.split("/"))


def _local(path: str) -> Stored:
    state = os.stat(path)
    return Stored(canonical(path), f"{state.st_size:x}-{state.st_mtime_ns:x}", state.st_size)


def require_unchanged(objects: Sequence[Stored]) -> None:
    """Refuse local files that changed while they were read: they may have been read by half.

    Raises:
        SourceError: one has changed, or is gone.
    """
    for stored in objects:
        if stored.etag is None or "://" in stored.key:  # an object on S3 is fetched by its ETag
            continue
        try:
            is_same = _local(stored.key).etag == stored.etag
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise SourceError(
                f"{stored.key} changed while it was read; nothing was written. Run this again "
                "when its writer is done",
                transient=True,
            )


def fetch(objects: Sequence[Stored], folder: Path, storage: ObjectStorage) -> list[Path]:
    """Return a local path for each object: itself, or a copy in ``folder`` of what is on S3.

    Several objects are downloaded at once: a small one costs little but the wait for its answer.
    """

    def fetch_one(number: int, stored: Stored) -> Path:
        if "://" not in stored.key:
            return Path(stored.key)
        path = folder / f"{number:06d}-{stored.key.rsplit('/', 1)[-1]}"
        object_store.download(stored.key, path, storage, etag=stored.etag, raising=SourceError)
        return path

    with ThreadPoolExecutor(object_store.AT_ONCE) as pool:
        try:
            return list(pool.map(fetch_one, range(len(objects)), objects))
        finally:  # after an error the others are not begun
            pool.shutdown(cancel_futures=True)


def stage(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    objects: Sequence[Stored],
    paths: Sequence[Path],
    lake_types: IdTypes | None = None,
) -> StagedBatch:
    """Fill ``staged_rows``, and ``objects`` (object, first_row, rows).

    See sql/ingest/create_staged_rows.sql.

    Args:
        con: an in-memory connection of our own, see :func:`recsys.lake.engine.open_duckdb`.
        source: what to read.
        objects: the objects to read, in the order that breaks ties in time.
        paths: the local path of each object.
        lake_types: the types of ids in the lake, where it has some.

    Raises:
        SourceError: the source can't be read, lacks a column, or has one of a wrong type.
    """
    kind = kind_of(source)
    with explained(source.uri):
        if kind == "duckdb":
            with attached(con, source, paths[0]) as relation:
                names = list(column_types(con, relation))
                column_map = resolve(source.columns, names, identity(source))
                staged = stage_typed(con, relation, column_map, source, lake_types)
            counts = [staged.rows]
        elif kind == "parquet" or kind == "delta":
            files = _read_heads(con, objects, paths)
            counts = [file.rows for file in files]
            # Files without rows say nothing: pandas writes them without types.
            full = [file for file in files if file.rows] or files[:1]
            column_map = _common_columns(source, full)
            relation = parquet([file.path for file in full])
            staged = stage_typed(con, relation, column_map, source, lake_types)
        else:
            staged, counts = text_files.stage(con, source, kind, objects, paths, lake_types)
    require_unchanged(objects)
    first_rows = np.cumsum([0, *counts[:-1]])
    names = [stored.key for stored in objects]
    con.register("counted", pa.table({"object": names, "first_row": first_rows, "rows": counts}))
    con.execute("create or replace table objects as from counted where rows > 0")
    con.unregister("counted")
    return staged


# --- DuckDB and Parquet: typed at the source


def confine_source(con: duckdb.DuckDBPyConnection, lake: Lake, source: Source | ItemSource) -> None:
    """Let the views and the query of a DuckDB source reach its own file and the lake alone."""
    if kind_of(source) == "duckdb":
        path = canonical(source.uri)
        lake.let_read(con)
        confine(con, [lake.uri("")], [path, f"{path}.wal"])


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
        # The table names of a view or query are looked up in the source, not among ours.
        con.execute("use recsys_source")
        yield _table(con, source) if source.query is None else _query(con, source)
    finally:
        clean_up(
            con,
            "use memory.main",  # "memory" alone may be a schema of the source
            "drop view if exists temp.recsys_source_rows",
            "drop view if exists temp.recsys_query",
            "detach recsys_source",
        )


def _table(con: duckdb.DuckDBPyConnection, source: Source | ItemSource) -> str:
    tables = con.execute(load("ingest/source_tables")).fetchall()
    for schema, name in tables:
        if source.table in ((name if schema == "main" else None), f"{schema}.{name}"):
            return f"recsys_source.{quote(schema)}.{quote(name)}"
    names = ", ".join(name if schema == "main" else f"{schema}.{name}" for schema, name in tables)
    raise SourceError(f"{source.uri} has no table {source.table!r}; it has {names or 'none'}")


def _query(con: duckdb.DuckDBPyConnection, source: Source | ItemSource) -> str:
    query = source.query or ""
    try:
        statements = con.extract_statements(query)
    except duckdb.Error as error:
        raise SourceError(f"the query is not SQL that DuckDB reads: {error}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the query has to be one single SELECT; nothing was run")
    # As a view's definition it may end with a semicolon or a comment.
    con.execute(f"create or replace temp view recsys_query as {query}")
    return "temp.recsys_query"


def parquet(paths: Sequence[Path]) -> str:
    """Return Parquet files, in order, as something to select from, in types that hold them all."""
    listed = ", ".join(file_literal(str(path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"


@dataclass(frozen=True)
class _ParquetFile:
    """What the end of a Parquet file says: its rows, and the DuckDB types of its columns."""

    stored: Stored
    path: Path
    rows: int
    types: dict[str, str]


def _read_heads(
    con: duckdb.DuckDBPyConnection, objects: Sequence[Stored], paths: Sequence[Path]
) -> list[_ParquetFile]:
    """Read what each file says of itself; DuckDB is asked once for files of the same columns.

    Of thousands of small files, a statement each would take longer than their rows do.
    """
    files, known = list[_ParquetFile](), list[tuple[pq.ParquetSchema, dict[str, str]]]()
    for stored, path in zip(objects, paths, strict=True):
        with explained(stored.key):
            try:
                head = pq.read_metadata(path)
            except (pa.ArrowException, OSError):  # DuckDB says what is wrong
                relation = parquet([path])
                types = column_types(con, relation)
                files.append(_ParquetFile(stored, path, count_rows(con, relation), types))
                continue
            types = next((types for schema, types in known if schema.equals(head.schema)), {})
            if not types:
                types = column_types(con, parquet([path]))
                known.append((head.schema, types))
        files.append(_ParquetFile(stored, path, head.num_rows, types))
    return files


def _kind_of_values(source_type: str) -> str:
    """Return a type's family; whole numbers may be written as integers or as real numbers."""
    family = type_family(source_type)
    return "numbers" if family in ("integers", "real numbers") else family


def _common_columns(source: Source, files: Sequence[_ParquetFile]) -> ColumnMap:
    """Find our columns in files, of which any may lack one that may be absent.

    A column that may be absent is null in the files that lack it.

    Raises:
        SourceError: a file lacks a required column, or holds another kind of ids or timestamps in
            it than the first one.
    """
    families: dict[str, str] = {}
    column_map = ColumnMap({})
    for file in files:
        key, types = file.stored.key, file.types
        of_file = resolve(source.columns, list(types), key)
        column_map |= of_file
        for ours in columns.REQUIRED:
            theirs = of_file.names[ours]
            family = _kind_of_values(types[theirs])
            if family == NO_TYPE:
                continue
            if families.setdefault(ours, family) != family:
                raise SourceError(
                    f"{key}: column {theirs!r} holds {family}, but {families[ours]} in "
                    "another; write them with the same type, or ingest each file by itself with "
                    "`recsys ingest`"
                )
    return column_map
