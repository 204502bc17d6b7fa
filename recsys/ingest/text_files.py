"""CSV and JSON Lines files, typed by us; a line that can't be read becomes a row with a fault."""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns
from recsys.errors import EmptySourceError, SourceError
from recsys.ingest.column_map import ColumnMap, resolve
from recsys.ingest.csv_files import (
    CHUNK,
    csv_dialect,
    csv_relation,
    holds_no_row,
    join_plain,
    open_text,
)
from recsys.ingest.ids import BLANKS, IDS, NULL_WORDS, ODD_SHARE, IdTypes, set_id_types
from recsys.ingest.staging import (
    StagedBatch,
    count_rows,
    define_row_as_json,
    define_type_macros,
    explained,
)
from recsys.ingest.timestamps import define_timestamp_macros
from recsys.temporary import temporary_folder
from sql import load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from recsys.lake.object_store import Stored
    from recsys.settings import Source

_UNFINISHED = "last line has no line end: it may be half-written"


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
    con.execute(load("ingest/create_integer_of_text"))
    read = _read_csv if kind == "csv" else _read_json_lines
    counts: list[int] = []
    column_map = ColumnMap({})
    pairs = zip(objects, paths, strict=True)
    empty = [holds_no_row(path, one.key, has_header=kind == "csv") for one, path in pairs]
    if all(empty):
        raise EmptySourceError(f"{objects[0].key} is empty: it holds no row")
    while (number := len(counts)) < len(objects):
        if empty[number]:  # it says nothing, and its columns may be anything
            counts.append(0)
            continue
        if kind == "csv" and (joined := _read_joined(con, source, objects, paths, number)):
            column_map |= joined[0]
            counts += joined[1]
            continue
        before = count_rows(con, "recsys_source_rows")
        with explained(objects[number].key):
            column_map |= read(con, source, objects[number], paths[number])
        counts.append(count_rows(con, "recsys_source_rows") - before)
    return _stage(con, column_map, source, lake_types), counts


def _stage(
    con: duckdb.DuckDBPyConnection,
    column_map: ColumnMap,
    source: Source,
    lake_types: IdTypes | None,
) -> StagedBatch:
    # Text has no types: where the lake holds text, digits stay text too; where it holds integers,
    # a row whose id is not an integer is rejected, and not the whole batch.
    define_row_as_json(con, column_map.names)
    note = define_timestamp_macros(
        con, "VARCHAR", source.timestamp_unit, column_map.names[columns.TIMESTAMP]
    )
    decided = set_id_types(source, lake_types)
    if not set(IDS) <= decided.keys():
        decided = _infer_id_types(con) | decided
    id_types = IdTypes(**decided)
    integers = {
        "user_is_integer": id_types.user_id == "BIGINT",
        "item_is_integer": id_types.item_id == "BIGINT",
    }
    if any(integers.values()):
        con.execute(load("ingest/update_faults_of_ids"), {**integers, "blanks": BLANKS})
    as_id = {"BIGINT": "integer_of_text(input)", "VARCHAR": "cast(input as varchar)"}
    define_type_macros(con, id_types, as_id[id_types.user_id], as_id[id_types.item_id], "VARCHAR")
    con.execute(load("ingest/create_staged_rows"))
    con.execute("drop table recsys_source_rows")
    rows = count_rows(con, "memory.main.staged_rows")
    return StagedBatch(rows, id_types, column_map.noted({columns.TIMESTAMP: note} if note else {}))


def _infer_id_types(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rules = {"blanks": BLANKS, "null_words": NULL_WORDS, "odd_share": ODD_SHARE}
    relation = con.sql(load("ingest/id_types"), params=rules)
    return dict(zip(relation.columns, relation.fetchall()[0], strict=True))


def _read_csv(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> ColumnMap:
    dialect = csv_dialect(path, stored.key)
    file_columns = dialect.names
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
        dialect,
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
    if not dialect.is_finished:
        con.execute(load("ingest/update_last_row"), {"fault": _UNFINISHED})
    con.execute("drop table records")
    return column_map


def _read_joined(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    objects: Sequence[Stored],
    paths: Sequence[Path],
    number: int,
) -> tuple[ColumnMap, list[int]] | None:
    """Read the files from a place on as one, as far as they are alike: see `join_plain`.

    Of thousands of small files, the statements for each would take longer than their rows do.

    Returns:
        Which column is which, and each file's row count; None where the file has to be read alone,
        since the next one differs, or to say what is wrong with which.
    """
    with temporary_folder() as folder:
        path = folder / "joined.csv"
        counts = join_plain(paths[number:], path)
        if len(counts) < 2:
            return None
        before = count_rows(con, "recsys_source_rows")
        ((first,),) = con.execute(
            "select coalesce(max(rowid), -1) + 1 from recsys_source_rows"
        ).fetchall()
        try:
            column_map = _read_csv(con, source, objects[number], path)
        except (SourceError, duckdb.Error):
            return None
    if count_rows(con, "recsys_source_rows") - before != sum(counts):
        con.execute("delete from recsys_source_rows where rowid >= ?", [first])
        return None
    own_rows = np.concatenate([np.arange(2, count + 2) for count in counts])
    joined_rows = np.arange(2, len(own_rows) + 2)
    con.register("joined_rows", pa.table({"joined_row": joined_rows, "own_row": own_rows}))
    con.execute(load("ingest/update_joined_rows"), {"first": first})
    con.unregister("joined_rows")
    return column_map, counts


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
    pointers: dict[str, str | None] = dict.fromkeys(columns.OPTIONAL)
    for ours, theirs in column_map.names.items():
        pointers[ours] = "/" + theirs.replace("~", "~0").replace("/", "~1")
    con.execute(load("ingest/insert_json_lines"), pointers)
    con.execute("drop table lines")
    return column_map


def _lines(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as (line, fault), a chunk at a time; bad UTF-8 is a fault."""
    schema = pa.schema([("line", pa.string()), ("fault", pa.string())])
    with open_text(path, name) as file:
        rest, last = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8), False
        while not last:
            chunk = file.read(CHUNK)
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
