"""CSV and JSON Lines files, typed by us; a line that can't be read becomes a row with a fault."""

from __future__ import annotations

import csv
import gzip
import zlib
from codecs import BOM_UTF8
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import SourceError
from recsys.ingest.column_map import ColumnMap, resolve
from recsys.ingest.staging import (
    BLANKS,
    IdTypes,
    StagedBatch,
    count_rows,
    define_row_as_json,
    define_type_macros,
    explained,
)
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from recsys.lake.object_store import Stored
    from recsys.settings import Source

_CHUNK = 16 << 20


def stage(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    kind: Literal["csv", "jsonl"],
    objects: Sequence[Stored],
    paths: Sequence[Path],
    lake_types: IdTypes | None,
) -> tuple[StagedBatch, list[int]]:
    """Fill ``staged_rows`` from text files; return what it holds, and each file's row count."""
    con.execute(load("ingest/create_source_rows"))
    read = _read_csv if kind == "csv" else _read_json_lines
    counts = []
    column_map = ColumnMap({})
    for stored, path in zip(objects, paths, strict=True):
        before = count_rows(con, "recsys_source_rows")
        with explained(stored.key):
            column_map |= read(con, source, stored, path)
        counts.append(count_rows(con, "recsys_source_rows") - before)
    return _stage(con, column_map, lake_types), counts


def _stage(
    con: duckdb.DuckDBPyConnection, column_map: ColumnMap, lake_types: IdTypes | None
) -> StagedBatch:
    # Text has no types: where the lake holds text, digits stay text too; where it holds integers,
    # a row whose id is not an integer is rejected, and not the whole batch.
    id_types = lake_types or _infer_id_types(con)
    define_row_as_json(con, column_map.names)
    integers = {
        "user_is_integer": id_types.user_id == "BIGINT",
        "item_is_integer": id_types.item_id == "BIGINT",
    }
    if any(integers.values()):
        con.execute(load("ingest/update_faults_of_ids"), {**integers, "blanks": BLANKS})
    define_type_macros(con, id_types, "VARCHAR", "VARCHAR", has_faults=True)
    con.execute(load("ingest/create_staged_rows"))
    con.execute("drop table recsys_source_rows")
    return StagedBatch(count_rows(con, "memory.main.staged_rows"), id_types, column_map)


def _infer_id_types(con: duckdb.DuckDBPyConnection) -> IdTypes:
    ((user_id, item_id),) = con.execute(load("ingest/id_types"), {"blanks": BLANKS}).fetchall()
    return IdTypes(user_id, item_id)


def _is_zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextmanager
def _open(path: Path, name: str) -> Iterator[Any]:
    """Open a text file, unzipped, for binary reading; its errors become ours."""
    try:
        with gzip.open(path) if _is_zipped(path) else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is truncated or damaged, or can't be read: {error}") from error


def csv_dialect(path: Path, name: str) -> tuple[str, list[str]]:
    """Return the delimiter and the column names that the first line of a CSV file has.

    A zipped file is read to its end to check its sum, which DuckDB does not: it would make up rows.
    """
    with _open(path, name) as file:
        try:
            head = file.readline(1 << 20).decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise SourceError(f"{name}: its first line is not UTF-8") from None
        while _is_zipped(path) and file.read(_CHUNK):
            pass
    if not head.strip():
        raise SourceError(f"{name} is empty: it lacks even the line of column names")
    delimiter = max(",\t;|", key=head.count)
    return delimiter, next(csv.reader([head], delimiter=delimiter))


def csv_relation(path: Path, delimiter: str, names: Iterable[str], more: str = "") -> str:
    """Return a CSV file as something to select from: these columns, by position, all text.

    ``more`` is added to the arguments of DuckDB's ``read_csv``.
    """
    zipped = ", compression = 'gzip'" if _is_zipped(path) else ""
    typed = ", ".join(f"{literal(name)}: 'varchar'" for name in names)
    return (
        f"read_csv({file_literal(str(path))}{zipped}, auto_detect = false, header = true, "
        f"columns = {{{typed}}}, delim = {literal(delimiter)}, "
        f"quote = '\"', escape = '\"', nullstr = ''{more})"
    )


def _read_csv(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> ColumnMap:
    delimiter, file_columns = csv_dialect(path, stored.key)
    column_map = resolve(source.columns, file_columns, stored.key)
    names = column_map.names
    for theirs in names.values():
        if file_columns.count(theirs) > 1:
            raise SourceError(f"{stored.key} has two columns named {theirs!r}; rename one")
    selected = ", ".join(
        f"{_position(file_columns, names.get(ours))} as {quote(ours)}"
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    # Columns go by position, since their names may repeat or differ in case alone.
    relation = csv_relation(
        path,
        delimiter,
        (f"c{position}" for position in range(len(file_columns))),
        ", allow_quoted_nulls = false, strict_mode = true, store_rejects = true, rejects_limit = 0",
    )
    for table in ("reject_errors", "reject_scans"):
        con.execute(f"drop table if exists temp.{table}")
    try:
        con.execute(f"create or replace temp table records as select {selected} from {relation}")  # noqa: S608 - names are quoted
    except duckdb.InvalidInputException as error:
        if "state machine" not in str(error):
            raise
        raise SourceError(
            f"{stored.key} can't be split into lines: some end in CR LF and some in LF alone; "
            "use the same line end everywhere"
        ) from error
    open_quote = con.execute(load("ingest/csv_open_quote")).fetchall()
    if open_quote:
        raise SourceError(
            f"{stored.key}, line {open_quote[0][0]}: a quote is opened and not closed, so the rest "
            "of the file can't be split into rows; close it or double it"
        )
    con.execute(load("ingest/insert_csv_records"))
    con.execute("drop table records")
    return column_map


def _position(file_columns: Sequence[str], name: str | None) -> str:
    return "null::varchar" if name is None else f"c{file_columns.index(name)}"


def _read_json_lines(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> ColumnMap:
    con.execute("create or replace temp table lines (line varchar, fault varchar)")
    for batch in _lines(path, stored.key):
        con.register("lines_of_chunk", batch)
        con.execute("insert into lines from lines_of_chunk")
        con.unregister("lines_of_chunk")
    keys = [key for (key,) in con.execute(load("ingest/json_keys")).fetchall()]
    if not keys:
        raise SourceError(f"{stored.key} is empty, or no line of it is a JSON object")
    column_map = resolve(source.columns, keys, stored.key)
    pointers = {
        ours: "/" + column_map.names.get(ours, ours).replace("~", "~0").replace("/", "~1")
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    }
    con.execute(load("ingest/insert_json_lines"), pointers)
    con.execute("drop table lines")
    return column_map


def _lines(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as (line, fault), a chunk at a time; bad UTF-8 is a fault."""
    schema = pa.schema([("line", pa.string()), ("fault", pa.string())])
    with _open(path, name) as file:
        rest, last = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8), False
        while not last:
            chunk = file.read(_CHUNK)
            last = not chunk
            chunk = rest + chunk
            end = len(chunk) if last else chunk.rfind(b"\n") + 1
            rest, whole = chunk[end:], chunk[:end].removesuffix(b"\n")
            if not end:
                continue
            split = pc.split_pattern(pa.array([whole], pa.binary()), b"\n").flatten()
            try:
                whole.decode()
                lines, faults = split.cast(pa.string()), pa.nulls(len(split), pa.string())
            except UnicodeDecodeError:
                pairs = [_as_text(line) for line in split.to_pylist()]
                lines = pa.array([line for line, _ in pairs], pa.string())
                faults = pa.array([fault for _, fault in pairs], pa.string())
            yield pa.RecordBatch.from_arrays([lines, faults], schema=schema)


def _as_text(line: bytes) -> tuple[str, str | None]:
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return line.decode(errors="backslashreplace"), "line is not UTF-8"
