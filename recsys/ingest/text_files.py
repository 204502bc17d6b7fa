"""CSV and JSON Lines files, typed by us; a line that can't be read becomes a row with a fault."""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from recsys.lake.object_store import Stored
    from recsys.settings import Source

LONGEST_LINE = 2 * CHUNK  # bytes, of JSON Lines
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
    files = [
        _File(stored.key, path, holds_no_row(path, stored.key, has_header=kind == "csv"))
        for stored, path in zip(objects, paths, strict=True)
    ]
    if all(file.is_empty for file in files):
        raise EmptySourceError(f"{files[0].name} is empty: it holds no row")
    read = _read_csv_files if kind == "csv" else _read_json_files
    column_map, counts = read(con, source, files)
    return _stage(con, column_map, source, lake_types), counts


@dataclass(frozen=True)
class _File:
    """A file to read: its name for people, where it lies, and whether it holds no row."""

    name: str
    path: Path
    is_empty: bool


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


def _read_csv_files(
    con: duckdb.DuckDBPyConnection, source: Source, files: Sequence[_File]
) -> tuple[ColumnMap, list[int]]:
    """Read the files, small ones that are alike as one.

    Of thousands of small files, the statements for each would take longer than their rows do.
    """
    column_map, counts, at_most = ColumnMap({}), list[int](), len(files)
    while (number := len(counts)) < len(files):
        file = files[number]
        if file.is_empty:  # it says nothing, and its columns may be anything
            counts.append(0)
            continue
        joined = _read_joined(con, source, files[number : number + at_most])
        if joined is None and at_most > 1:
            at_most //= 2
            continue
        at_most = min(len(files), 2 * at_most)
        if joined is not None:
            column_map |= joined[0]
            counts += joined[1]
            continue
        before = count_rows(con, "recsys_source_rows")
        with explained(file.name):
            column_map |= _read_csv(con, source, file.name, file.path)
        counts.append(count_rows(con, "recsys_source_rows") - before)
    return column_map, counts


def _read_csv(con: duckdb.DuckDBPyConnection, source: Source, name: str, path: Path) -> ColumnMap:
    dialect = csv_dialect(path, name)
    file_columns = dialect.names
    column_map = resolve(source.columns, file_columns, name)
    names = column_map.names
    for theirs in names.values():
        if file_columns.count(theirs) > 1:
            raise SourceError(f"{name} has two columns named {theirs!r}; rename one")
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
            f"{name} can't be split into lines: some end in CR LF and some in LF alone; "
            "use the same line end everywhere"
        ) from error
    open_quote = con.execute(load("ingest/csv_open_quote")).fetchall()
    if open_quote:
        raise SourceError(
            f"{name}, line {open_quote[0][0]}: a quote is opened and not closed, so the rest "
            "of the file can't be split into rows; close it or double it"
        )
    con.execute(load("ingest/insert_csv_records"))
    if not dialect.is_finished:
        con.execute(load("ingest/update_last_row"), {"fault": _UNFINISHED})
    con.execute("drop table records")
    return column_map


def _read_joined(
    con: duckdb.DuckDBPyConnection, source: Source, files: Sequence[_File]
) -> tuple[ColumnMap, list[int]] | None:
    """Read the first of some files as one, as far as they are alike: see `join_plain`.

    Returns:
        Which column is which, and each file's row count; None where fewer have to be read, or one
        alone, to say what is wrong with which.
    """
    with temporary_folder() as folder:
        path = folder / "joined.csv"
        joined = join_plain([one.path for one in files], [one.is_empty for one in files], path)
        if joined is None:
            return None
        before = count_rows(con, "recsys_source_rows")
        ((first,),) = con.execute(
            "select coalesce(max(rowid), -1) + 1 from recsys_source_rows"
        ).fetchall()
        try:
            column_map = _read_csv(con, source, files[0].name, path)
        except (SourceError, duckdb.Error):
            return None
    counts = joined.counts
    if count_rows(con, "recsys_source_rows") - before != sum(counts):
        con.execute("delete from recsys_source_rows where rowid >= ?", [first])
        return None
    own_rows = np.concatenate([np.arange(2, count + 2) for count in counts])
    faults = np.full(len(own_rows), None)
    ends = np.cumsum(counts)[~np.array(joined.are_finished)]
    faults[ends - 1] = _UNFINISHED
    rows = {
        "joined_row": np.arange(2, len(own_rows) + 2),
        "own_row": own_rows,
        "own_fault": pa.array(faults, pa.string()),
    }
    con.register("joined_rows", pa.table(rows))
    con.execute(load("ingest/update_joined_rows"), {"first": first})
    con.unregister("joined_rows")
    return column_map, counts


def _position(file_columns: Sequence[str], name: str | None) -> str:
    return "null::varchar" if name is None else f"c{file_columns.index(name)}"


def _read_json_files(
    con: duckdb.DuckDBPyConnection, source: Source, files: Sequence[_File]
) -> tuple[ColumnMap, list[int]]:
    """Read the files, as many with the same statements as there is room for their lines."""
    column_map, counts = ColumnMap({}), list[int]()
    while (number := len(counts)) < len(files):
        sizes = np.cumsum([file.path.stat().st_size for file in files[number:]])
        stop = number + max(1, int(np.searchsorted(sizes, CHUNK, side="right")))
        with explained(files[number].name if stop - number == 1 else source.uri):
            columns_of_some, counts_of_some = _read_json_lines(con, source, files[number:stop])
        column_map |= columns_of_some
        counts += counts_of_some
    return column_map, counts


def _read_json_lines(
    con: duckdb.DuckDBPyConnection, source: Source, files: Sequence[_File]
) -> tuple[ColumnMap, list[int]]:
    """Read some files with the same statements, those with other columns with more of them.

    Raises:
        SourceError: one holds no JSON object, or lacks a column.
    """
    con.execute(load("ingest/create_lines"))
    for table in _tables_of_lines(files):
        con.register("lines_of_chunk", table)
        con.execute("insert into lines from lines_of_chunk")
        con.unregister("lines_of_chunk")
    described = {place: told for place, *told in con.execute(load("ingest/json_files")).fetchall()}
    column_map, counts = ColumnMap({}), list[int]()
    names, keys, first = dict[str, str](), set[str](), 0
    for place, file in enumerate(files):
        if file.is_empty:  # it says nothing, and its columns may be anything
            counts.append(0)
            continue
        rows, own_keys = described[place]
        if not own_keys:
            raise SourceError(f"{file.name}: no line of it is a JSON object; write one a line")
        own = resolve(source.columns, own_keys, file.name)
        both = {**names, **own.names}
        if not (_mean(both, own.names, own_keys) and _mean(both, names, keys)):
            _insert_json_lines(con, names, first, place)
            names, keys, first, both = {}, set(), place, dict(own.names)
        names, keys = both, keys.union(own_keys)
        column_map |= own
        counts.append(rows)
    _insert_json_lines(con, names, first, len(files))
    con.execute("drop table lines")
    return column_map, counts


def _mean(both: Mapping[str, str], names: Mapping[str, str], keys: Collection[str]) -> bool:
    """Say whether the names of two files find in one of them what its own names find."""
    return all(
        names[ours] == theirs if ours in names else theirs not in keys
        for ours, theirs in both.items()
    )


def _insert_json_lines(
    con: duckdb.DuckDBPyConnection, names: Mapping[str, str], first: int, end: int
) -> None:
    """Insert the lines of the files from one on and before another one."""
    pointers: dict[str, Any] = dict.fromkeys((*columns.REQUIRED, *columns.OPTIONAL))
    for ours, theirs in names.items():
        pointers[ours] = "/" + theirs.replace("~", "~0").replace("/", "~1")
    con.execute(load("ingest/insert_json_lines"), {**pointers, "first": first, "end": end})


def _tables_of_lines(files: Sequence[_File]) -> Iterator[pa.Table]:
    """Yield the lines of files as (line, fault, file, number), those of small files together."""
    batches, size = list[pa.RecordBatch](), 0
    for place, file in enumerate(files):
        if file.is_empty:
            continue
        number = 1
        for batch in _lines(file.path, file.name):
            numbers = pa.array(np.arange(number, number + len(batch)))
            of_file = pa.repeat(pa.scalar(place, pa.int64()), len(batch))
            batches.append(batch.append_column("file", of_file).append_column("number", numbers))
            number += len(batch)
            size += batch.nbytes
            if size > CHUNK:
                yield pa.Table.from_batches(batches)
                batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


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
            if len(rest) > LONGEST_LINE:
                raise SourceError(f"{name}: a line is longer than {LONGEST_LINE:,} bytes")
            if not end:
                continue
            split = pc.split_pattern(pa.array([whole], pa.binary()), b"\n").flatten()
            try:
                whole.decode()
                lines, faults = split.cast(pa.string()), pa.nulls(len(split), pa.string())
            except UnicodeDecodeError:
                texts, problems = zip(*map(_as_text, split.to_pylist()), strict=True)
                lines, faults = pa.array(texts, pa.string()), pa.array(problems, pa.string())
            yield pa.RecordBatch.from_arrays([lines, faults], schema=schema)


def _as_text(line: bytes) -> tuple[str, str | None]:
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return line.decode(errors="backslashreplace"), "line is not UTF-8"
