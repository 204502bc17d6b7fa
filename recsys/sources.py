"""Where interactions come from: pull rows into a table ``staged``, typed, in source order."""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from recsys import columns, objects
from recsys.errors import ConfigurationError, SourceError
from recsys.objects import Stored
from sql import literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from recsys.config import ItemSource, Source
    from recsys.settings import ObjectStorage

Kind = Literal["duckdb", "parquet", "csv", "jsonl"]

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}
_ENDINGS: dict[str, Kind] = {".parquet": "parquet", ".pq": "parquet"}
_ENDINGS |= {".csv": "csv", ".csv.gz": "csv", ".tsv": "csv", ".tsv.gz": "csv"}
_ENDINGS |= {f".{name}{zipped}": "jsonl" for name in ("jsonl", "ndjson") for zipped in ("", ".gz")}
_ENDINGS |= {".json": "jsonl", ".json.gz": "jsonl"}
_CHUNK = 16 << 20
ITEM_COLUMNS = (columns.ITEM_ID, "title", "category", "eligible")
# What does not make an id: white space, and marks that show nothing.
BLANKS = " \t\n\r\f\v\u00a0\u2003\u3000\u200b\ufeff"


@dataclass(frozen=True)
class Pulled:
    """What :func:`pull` has put into ``staged``."""

    rows: int
    user_type: str  # BIGINT or VARCHAR
    item_type: str
    names: Mapping[str, str]  # our column -> the source's, for the columns that exist


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
        found = objects.find(uri, storage, raising=SourceError)
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
            objects.download(stored.key, path, storage, raising=SourceError)
        paths.append(path)
    return paths


def pull(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    found: Sequence[Stored],
    paths: Sequence[Path],
    held: tuple[str, str] | None = None,
) -> Pulled:
    """Fill ``staged`` (see sql/sources/stage.sql) and ``objects`` (object, first_row, rows).

    Args:
        con: an in-memory connection of our own, see :func:`recsys.lake.connect`.
        source: what to read.
        found: the objects to read, in the order that breaks ties in time.
        paths: where each of them lies locally.
        held: the lake's id types (BIGINT or VARCHAR), when it has rows already.

    Raises:
        SourceError: the source can't be read, lacks a column, or has one of a wrong type.
    """
    con.execute("create or replace table objects (object varchar, first_row bigint, rows bigint)")
    kind = kind_of(source)
    with _explained(source.uri):
        if kind == "duckdb":
            with attached(con, source, paths[0]) as relation:
                pulled = _stage_typed(con, source, relation, held)
            counts = [pulled.rows]
        elif kind == "parquet":
            counts = _parquet_rows(con, found, paths)
            names = _one_shape(con, source, found, paths)
            pulled = _stage_typed(con, source, parquet(paths), held, names)
        else:
            read = _read_csv if kind == "csv" else _read_json_lines
            con.execute(load("sources/text"))
            counts = []
            present: dict[str, str] = {}
            for stored, path in zip(found, paths, strict=True):
                before = _count(con, "pulled")
                with _explained(stored.key):
                    present |= read(con, source, stored, path)
                counts.append(_count(con, "pulled") - before)
            pulled = _stage_text(con, present, held)
        _row_as_json(con, pulled.names)
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
        locked = "lock" in str(error).lower()
        raise SourceError(
            f"{source.uri} can't be opened as a DuckDB file: {_first_line(error)}"
            + ("; another process has it open for writing" if locked else ""),
            transient=locked,
        ) from error
    try:
        # A view's or query's own table names are looked up in the source, not among ours.
        con.execute("use recsys_source")
        yield _the_query(con, source) if source.table is None else _the_table(con, source)
    finally:
        con.execute("use memory")
        con.execute("drop view if exists temp.pulled")
        con.execute("drop view if exists temp.recsys_query")
        con.execute("detach recsys_source")


def _the_table(con: duckdb.DuckDBPyConnection, source: Source | ItemSource) -> str:
    wanted = source.table or ""
    there = con.execute(load("sources/tables")).fetchall()
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
    """Return Parquet files, in order, as something to select from."""
    listed = ", ".join(literal(str(path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _parquet_rows(
    con: duckdb.DuckDBPyConnection, found: Sequence[Stored], paths: Sequence[Path]
) -> list[int]:
    rows = []
    for stored, path in zip(found, paths, strict=True):
        with _explained(stored.key):
            footer = con.execute(
                "select num_rows from parquet_file_metadata($path)", {"path": str(path)}
            ).fetchall()
        rows.append(int(footer[0][0]))
    return rows


def _one_shape(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    found: Sequence[Stored],
    paths: Sequence[Path],
) -> dict[str, str]:
    """Check that each file has the mapped columns, in the same families of types as the first."""
    first: dict[str, str] | None = None
    names: dict[str, str] = {}
    for stored, path in zip(found, paths, strict=True):
        with _explained(stored.key):
            there = con.sql(f"select * from {parquet([path])} limit 0")  # noqa: S608 - names are quoted
            kinds = dict(zip(there.columns, map(str, there.types), strict=True))
        this = resolve(source.columns, list(kinds), stored.key)
        families = {ours: _family(kinds[theirs]) for ours, theirs in this.items()}
        if first is None:
            first, names = families, this
        for ours, family in families.items():
            if ours in first and first[ours] != family:
                raise SourceError(
                    f"{stored.key}: column {this[ours]!r} holds {family}, but {first[ours]} in "
                    f"{found[0].key}; write them alike, or pull them as two sources"
                )
        if set(families) != set(first):
            raise SourceError(
                f"{stored.key} has the columns {', '.join(sorted(families))}, but "
                f"{found[0].key} has {', '.join(sorted(first))}; pull them as two sources"
            )
    return names


def _family(kind: str) -> str:
    if kind in _INTEGERS:
        return "integers"
    if kind.startswith(("DECIMAL", "FLOAT", "DOUBLE")):
        return "real numbers"
    return "text" if kind.startswith(("VARCHAR", "ENUM", "UUID")) else kind


def resolve(mapping: Mapping[str, str], there: Sequence[str], where: str) -> dict[str, str]:
    """Return our column -> the source's, for the required ones and the optional ones there are.

    Raises:
        SourceError: a required or a mapped column is missing.
    """
    names = {}
    exact = set(there)
    for ours in (*columns.REQUIRED, *columns.OPTIONAL):
        theirs = mapping.get(ours, ours)
        if theirs in exact:
            names[ours] = theirs
        elif ours in columns.REQUIRED or ours in mapping:
            shown = ", ".join(list(there)[:50]) or "none"
            hint = (
                f"the mapping says {ours}={theirs}"
                if ours in mapping
                else f"map it, e.g. {ours}=<one of them>"
            )
            raise SourceError(f"{where} has no column {theirs!r}; it has {shown}; {hint}")
    return names


def _stage_typed(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    relation: str,
    held: tuple[str, str] | None,
    names: dict[str, str] | None = None,
) -> Pulled:
    there = con.sql(f"select * from {relation} limit 0")  # noqa: S608 - names are quoted
    kinds = dict(zip(there.columns, map(str, there.types), strict=True))
    names = names or resolve(source.columns, there.columns, identity(source))
    types = {ours: kinds[theirs] for ours, theirs in names.items()}
    ids = {ours: _id_type(ours, names[ours], types[ours]) for ours in ("user_id", "item_id")}
    _same_as_held((ids["user_id"], ids["item_id"]), held)
    absent = {columns.EVENT: "null::varchar", columns.VALUE: "null::double"}
    picked = ", ".join(
        f"{quote(names[ours]) if ours in names else absent[ours]} as {quote(ours)}"
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    con.execute(
        f"create or replace temp view pulled as select {picked}, null::bigint as source_row, "  # noqa: S608 - names are quoted
        f"null::varchar as fault, null::varchar as given from {relation}"
    )
    _macros(con, ids["user_id"], ids["item_id"], types["timestamp"], types.get("value", "DOUBLE"))
    con.execute(load("sources/stage"))
    return Pulled(_count(con, "memory.main.staged"), ids["user_id"], ids["item_id"], names)


def _id_type(ours: str, theirs: str, kind: str) -> str:
    family = _family(kind)
    if family == "integers":
        return "BIGINT"
    if family == "text":
        return "VARCHAR"
    raise SourceError(
        f"{ours} is taken from column {theirs!r}, which holds {kind}; an id is an integer or text: "
        "cast it in a query, or in the files"
    )


def _same_as_held(ids: tuple[str, str], held: tuple[str, str] | None) -> None:
    for ours, kind, before in zip(("user_id", "item_id"), ids, held or ids, strict=True):
        if kind != before:
            words = {"BIGINT": "integers", "VARCHAR": "text"}
            raise SourceError(
                f"{ours} of the source holds {words[kind]}, but the lake holds {words[before]}; "
                "cast it at the source, or start a lake of its own for it"
            )


def _macros(
    con: duckdb.DuckDBPyConnection,
    user: str,
    item: str,
    timestamp: str,
    value: str,
    *,
    text: bool = False,
) -> None:
    """Define what sql/sources/stage.sql needs for a source's types."""
    con.execute(load("sources/moment_of_number"))
    # Of text, the ids that are no integers have been marked before.
    cast = "try_cast" if text else "cast"
    kept = "given"
    if timestamp.startswith("TIMESTAMP") or timestamp == "DATE":
        # The session's time zone is UTC, so a timestamp without one is taken as UTC.
        moment = "case when isfinite(given) then cast(given as timestamptz) end"
        kept = "case when not isfinite(given) then cast(given as varchar) end"
    elif timestamp in _INTEGERS or _family(timestamp) == "real numbers":
        moment = "moment_of_number(given)"
    elif timestamp == "VARCHAR":
        con.execute(load("sources/moment_of_text"))
        moment = "as_moment(given)"
    else:
        raise SourceError(
            f"timestamp is taken from a column that holds {timestamp}; it has to be a timestamp, a "
            "date, epoch seconds or milliseconds, or ISO text: cast it in a query"
        )
    for name, body in {
        "as_user": f"{cast}(given as {user})",
        "as_item": f"{cast}(given as {item})",
        "user_text": "given" if user == "VARCHAR" else "null::varchar",
        "item_text": "given" if item == "VARCHAR" else "null::varchar",
        "kept_timestamp": kept,
        "kept_value": "given" if value == "VARCHAR" else "null::varchar",
        **({"as_moment": moment} if timestamp != "VARCHAR" else {}),
    }.items():
        con.execute(f"create or replace temp macro {name}(given) as {body}")


def _row_as_json(con: duckdb.DuckDBPyConnection, names: Mapping[str, str]) -> None:
    """Define the macro that gives a staged row as JSON under the source's own names."""
    ours = (*columns.REQUIRED, *columns.OPTIONAL)
    pairs = ", ".join(f"{literal(names[name])}, {quote(name)}" for name in ours if name in names)
    con.execute(
        f"create or replace temp macro row_as_json({', '.join(map(quote, ours))}) as "
        f"cast(json_object({pairs}) as varchar)"
    )


# --- CSV and JSON Lines: text, typed by us


def _stage_text(
    con: duckdb.DuckDBPyConnection, names: dict[str, str], held: tuple[str, str] | None
) -> Pulled:
    kinds = con.execute(load("sources/id_types"), {"blanks": BLANKS}).fetchall()[0]
    # Text has no types: where the lake holds text, digits stay text too.
    user, item = (
        "VARCHAR" if held and held[at] == "VARCHAR" else kind for at, kind in enumerate(kinds)
    )
    _same_as_held((user, item), held)
    _row_as_json(con, names)
    whole = {"user_is_integer": user == "BIGINT", "item_is_integer": item == "BIGINT"}
    if any(whole.values()):
        con.execute(load("sources/blank_ids"), {**whole, "blanks": BLANKS})
    _macros(con, user, item, "VARCHAR", "VARCHAR", text=True)
    con.execute(load("sources/stage"))
    con.execute("drop table pulled")
    return Pulled(_count(con, "memory.main.staged"), user, item, names)


def _open_text(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def csv_dialect(path: Path, name: str) -> tuple[str, list[str]]:
    """Return (delimiter, column names) as the first line of a CSV file has them."""
    with _open_text(path) as file:
        try:
            head = file.readline(1 << 20).decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise SourceError(f"{name}: its first line is not UTF-8") from None
    if not head.strip():
        raise SourceError(f"{name} is empty: it has not even a line of column names")
    delimiter = max(",\t;|", key=head.count)
    return delimiter, next(csv.reader([head], delimiter=delimiter))


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
    kinds = ", ".join(f"c{at}: 'varchar'" for at in range(len(there)))
    relation = (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, "
        f"columns = {{{kinds}}}, delim = {literal(delimiter)}, "
        "quote = '\"', escape = '\"', nullstr = '', "
        "allow_quoted_nulls = false, strict_mode = true, store_rejects = true, rejects_limit = 0)"
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
    open_quote = con.execute(load("sources/csv_open_quote")).fetchall()
    if open_quote:
        raise SourceError(
            f"{stored.key}, line {open_quote[0][0]}: a quote is opened and not closed, so that the "
            "rest of the file can't be told apart; close it or double it"
        )
    con.execute(load("sources/csv_records"))
    con.execute("drop table records")
    return names


def _read_json_lines(
    con: duckdb.DuckDBPyConnection, source: Source, stored: Stored, path: Path
) -> dict[str, str]:
    con.execute("create or replace temp table lines (line varchar, fault varchar)")
    try:
        for batch in _lines(path):
            con.register("arriving", batch)
            con.execute("insert into lines from arriving")
            con.unregister("arriving")
    except (OSError, EOFError) as error:
        raise SourceError(f"{stored.key} is truncated or damaged: {error}") from error
    there = [name for (name,) in con.execute(load("sources/json_keys")).fetchall()]
    if not there:
        raise SourceError(f"{stored.key} is empty, or no line of it is a JSON object")
    names = resolve(source.columns, there, stored.key)
    pointers = {
        ours: "/" + source.columns.get(ours, ours).replace("~", "~0").replace("/", "~1")
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    }
    con.execute(load("sources/json_lines"), pointers)
    con.execute("drop table lines")
    return names


def _lines(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the lines of a file as (line, fault), a chunk at a time; bad UTF-8 is a fault."""
    schema = pa.schema([("line", pa.string()), ("fault", pa.string())])
    with _open_text(path) as file:
        rest, last = b"", False
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


def _count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(con.execute(f"select count(*) from {table}").fetchall()[0][0])  # noqa: S608 - names are quoted


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise SourceError(f"{name} can't be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


# --- the catalogue of items


def pull_items(
    con: duckdb.DuckDBPyConnection, source: ItemSource, paths: Sequence[Path], held: str
) -> None:
    """Fill ``new_items`` (see sql/sources/items.sql) with ids of the lake's type.

    Raises:
        SourceError: the source can't be read, or lacks item_id, or has one of another type.
    """
    kind = kind_of(source)
    with _explained(identity(source)):
        if kind == "duckdb":
            with attached(con, source, paths[0]) as relation:
                con.execute(f"create or replace temp table given as select * from {relation}")  # noqa: S608 - names are quoted
        else:
            read = {"parquet": _parquet_items, "csv": _csv_items, "jsonl": _json_items}[kind]
            every = " union all by name ".join(f"select * from {read(path)}" for path in paths)  # noqa: S608 - names are quoted
            con.execute(f"create or replace temp table given as {every}")
        there = con.table("given")
        kinds = dict(zip(there.columns, map(str, there.types), strict=True))
        names = {ours: source.columns.get(ours, ours) for ours in ITEM_COLUMNS}
        for ours, theirs in names.items():
            if theirs not in kinds and (ours == columns.ITEM_ID or ours in source.columns):
                raise SourceError(
                    f"{identity(source)} has no column {theirs!r}; it has {', '.join(kinds)}; "
                    f"map it: {ours}=<one of them>"
                )
        given = _id_type(columns.ITEM_ID, names[columns.ITEM_ID], kinds[names[columns.ITEM_ID]])
        if kind != "csv" and given != held:
            raise SourceError(
                f"item_id of {identity(source)} holds {_family(kinds[names['item_id']])}, but that "
                f"of the lake's interactions {'integers' if held == 'BIGINT' else 'text'}; cast it"
            )
        taken = ", ".join(
            f"{quote(names[ours]) if names[ours] in kinds else 'null'} as {ours}"
            for ours in ITEM_COLUMNS
        )
        others = [name for name in kinds if name not in names.values()]
        packed = ", ".join(f"{literal(name)}, {quote(name)}" for name in others)
        extra = f"cast(json_object({packed}) as varchar)" if others else "null::varchar"
        con.execute(
            f"create or replace temp view catalogue as select {taken}, {extra} as extra from given"  # noqa: S608 - names are quoted
        )
        con.execute(f"create or replace temp macro as_item(given) as cast(given as {held})")
        con.execute(load("sources/items"))


def _parquet_items(path: Path) -> str:
    return parquet([path])


def _csv_items(path: Path) -> str:
    delimiter, there = csv_dialect(path, path.name)
    if len({name.lower() for name in there}) < len(there):
        raise SourceError(f"{path.name} has two columns of the same name; rename one")
    kinds = ", ".join(f"{literal(name)}: 'varchar'" for name in there)
    return (
        f"read_csv({literal(str(path))}, auto_detect = false, header = true, "
        f"columns = {{{kinds}}}, delim = {literal(delimiter)}, "
        "quote = '\"', escape = '\"', nullstr = '')"
    )


def _json_items(path: Path) -> str:
    return f"read_json({literal(str(path))}, format = 'newline_delimited', sample_size = -1)"
