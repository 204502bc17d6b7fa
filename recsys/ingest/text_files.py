"""CSV and JSON Lines: text, typed by us; a line that can't be read becomes a row with a fault."""

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
from recsys.ingest.staging import (
    BLANKS,
    Pulled,
    define_macros,
    explained,
    resolve,
    row_as_json,
    rows_in,
)
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from recsys.lake.object_store import Stored
    from recsys.settings import Source

_CHUNK = 16 << 20


def pull(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    kind: Literal["csv", "jsonl"],
    found: Sequence[Stored],
    paths: Sequence[Path],
    held: tuple[str, str] | None,
) -> tuple[Pulled, list[int]]:
    """Fill ``staged`` from text files; return what it holds, and how many rows each file gave."""
    con.execute(load("ingest/text"))
    read = _read_csv if kind == "csv" else _read_json_lines
    counts = []
    present: dict[str, str] = {}
    for stored, path in zip(found, paths, strict=True):
        before = rows_in(con, "recsys_pulled")
        with explained(stored.key):
            present |= read(con, source, stored, path)
        counts.append(rows_in(con, "recsys_pulled") - before)
    return _stage(con, present, held), counts


def _stage(
    con: duckdb.DuckDBPyConnection, names: dict[str, str], held: tuple[str, str] | None
) -> Pulled:
    # Text has no types: where the lake holds text, digits stay text too; where it holds integers,
    # a row whose id is none is rejected, and not the whole batch.
    user, item = held or con.execute(load("ingest/id_types"), {"blanks": BLANKS}).fetchall()[0]
    row_as_json(con, names)
    whole = {"user_is_integer": user == "BIGINT", "item_is_integer": item == "BIGINT"}
    if any(whole.values()):
        con.execute(load("ingest/no_integers"), {**whole, "blanks": BLANKS})
    define_macros(con, user, item, "VARCHAR", "VARCHAR", marked=True)
    con.execute(load("ingest/stage"))
    con.execute("drop table recsys_pulled")
    return Pulled(rows_in(con, "memory.main.staged"), user, item, names)


def _is_zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """Open a text file, unzipped, for binary reading; what is wrong with it is ours to say."""
    try:
        with gzip.open(path) if _is_zipped(path) else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is truncated or damaged, or can't be read: {error}") from error


def csv_dialect(path: Path, name: str) -> tuple[str, list[str]]:
    """Return (delimiter, column names) as the first line of a CSV file has them.

    A zipped file is read to its end, since DuckDB checks no checksum and would make up rows.
    """
    with _opened(path, name) as file:
        try:
            head = file.readline(1 << 20).decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise SourceError(f"{name}: its first line is not UTF-8") from None
        while _is_zipped(path) and file.read(_CHUNK):
            pass
    if not head.strip():
        raise SourceError(f"{name} is empty: it has not even a line of column names")
    delimiter = max(",\t;|", key=head.count)
    return delimiter, next(csv.reader([head], delimiter=delimiter))


def csv_relation(path: Path, delimiter: str, names: Iterable[str], more: str = "") -> str:
    """Return a CSV file as something to select from: these columns, by position, all text.

    ``more`` goes to DuckDB's ``read_csv`` as it is.
    """
    zipped = ", compression = 'gzip'" if _is_zipped(path) else ""
    kinds = ", ".join(f"{literal(name)}: 'varchar'" for name in names)
    return (
        f"read_csv({file_literal(str(path))}{zipped}, auto_detect = false, header = true, "
        f"columns = {{{kinds}}}, delim = {literal(delimiter)}, "
        f"quote = '\"', escape = '\"', nullstr = ''{more})"
    )


def _read_csv(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> dict[str, str]:
    delimiter, there = csv_dialect(path, stored.key)
    names = resolve(source.columns, there, stored.key)
    for theirs in names.values():
        if there.count(theirs) > 1:
            raise SourceError(f"{stored.key} has two columns named {theirs!r}; rename one")
    picked = ", ".join(
        f"{f'c{there.index(names[ours])}' if ours in names else 'null::varchar'} as {quote(ours)}"
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    # Columns go by position, since their names may repeat or differ in case alone.
    relation = csv_relation(
        path,
        delimiter,
        (f"c{at}" for at in range(len(there))),
        ", allow_quoted_nulls = false, strict_mode = true, store_rejects = true, rejects_limit = 0",
    )
    for table in ("reject_errors", "reject_scans"):
        con.execute(f"drop table if exists temp.{table}")
    try:
        con.execute(f"create or replace temp table records as select {picked} from {relation}")  # noqa: S608 - names are quoted
    except duckdb.InvalidInputException as error:
        if "state machine" not in str(error):
            raise
        raise SourceError(
            f"{stored.key} can't be told apart into lines: some end in CR LF and some in LF "
            "alone; write them all alike"
        ) from error
    open_quote = con.execute(load("ingest/csv_open_quote")).fetchall()
    if open_quote:
        raise SourceError(
            f"{stored.key}, line {open_quote[0][0]}: a quote is opened and not closed, so that the "
            "rest of the file can't be told apart; close it or double it"
        )
    con.execute(load("ingest/csv_records"))
    con.execute("drop table records")
    return names


def _read_json_lines(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> dict[str, str]:
    con.execute("create or replace temp table lines (line varchar, fault varchar)")
    for batch in _lines(path, stored.key):
        con.register("arriving", batch)
        con.execute("insert into lines from arriving")
        con.unregister("arriving")
    there = [name for (name,) in con.execute(load("ingest/json_keys")).fetchall()]
    if not there:
        raise SourceError(f"{stored.key} is empty, or no line of it is a JSON object")
    names = resolve(source.columns, there, stored.key)
    pointers = {
        ours: "/" + source.columns.get(ours, ours).replace("~", "~0").replace("/", "~1")
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    }
    con.execute(load("ingest/json_lines"), pointers)
    con.execute("drop table lines")
    return names


def _lines(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as (line, fault), a chunk at a time; bad UTF-8 is a fault."""
    schema = pa.schema([("line", pa.string()), ("fault", pa.string())])
    with _opened(path, name) as file:
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
