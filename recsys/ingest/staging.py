"""Rows of any source on their way in: which column is which, of what types, and ``staged``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from recsys import columns
from recsys.errors import SourceError
from recsys.lake.engine import INTEGER_TYPES, column_types, type_family
from sql import literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


# The types that ids have in the lake, as DuckDB and as Arrow call them.
ARROW = {"BIGINT": pa.int64(), "VARCHAR": pa.string()}
DUCKDB = {arrow: name for name, arrow in ARROW.items()}
# What does not make an id: white space, and marks that show nothing.
BLANKS = " \t\n\r\f\v\u00a0\u2003\u3000\u200b\ufeff"

_WIDER_THAN_OURS = {"HUGEINT", "UBIGINT", "UHUGEINT"}
_ROWS_AT_A_TIME = 100_000  # as many as the Delta writer may hold several of


@dataclass(frozen=True)
class Pulled:
    """What has been put into ``staged``."""

    rows: int
    user_type: str  # BIGINT or VARCHAR
    item_type: str
    names: Mapping[str, str]  # our column -> the source's, for the columns that exist


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


def stage_typed(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    names: Mapping[str, str],
    held: tuple[str, str] | None,
) -> Pulled:
    """Fill ``staged`` from a relation that has types of its own.

    Args:
        con: the connection that ``staged`` is made in.
        relation: something to select from.
        names: our column -> the relation's.
        held: the lake's id types, when it has rows already.
    """
    kinds = column_types(con, relation)
    types = {ours: kinds[theirs] for ours, theirs in names.items()}
    ids = {ours: id_type(ours, names[ours], types[ours]) for ours in ("user_id", "item_id")}
    same_as_held((ids["user_id"], ids["item_id"]), held)
    absent = {columns.EVENT: "null::varchar", columns.VALUE: "null::double"}
    picked = ", ".join(
        f"{quote(names[ours]) if ours in names else absent[ours]} as {quote(ours)}"
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    row_as_json(con, names)
    wide = [ours for ours in ids if types[ours] in _WIDER_THAN_OURS]
    lost = {ours: f"{ours} is not null and try_cast({ours} as bigint) is null" for ours in wide}
    faults = [f"when {is_lost} then '{ours} is beyond 64 bits'" for ours, is_lost in lost.items()]
    con.execute(
        "create or replace temp view recsys_pulled as select *, null::bigint as source_row, "  # noqa: S608 - names are quoted
        f"case {' '.join(faults) or 'when false then null'} end::varchar as fault, "
        f"case when {' or '.join(lost.values()) or 'false'} "
        "then row_as_json(user_id, item_id, timestamp, event, value) end as given "
        f"from (select {picked} from {relation})"
    )
    define_macros(
        con,
        ids["user_id"],
        ids["item_id"],
        types["timestamp"],
        types.get("value", "DOUBLE"),
        marked=bool(wide),
    )
    con.execute(load("ingest/stage"))
    return Pulled(rows_in(con, "memory.main.staged"), ids["user_id"], ids["item_id"], names)


def id_type(ours: str, theirs: str, kind: str) -> str:
    """Return BIGINT or VARCHAR, what an id of a DuckDB type becomes.

    Raises:
        SourceError: an id can't be of this type.
    """
    held = type_family(kind)
    if held == "integers":
        return "BIGINT"
    if held == "text":
        return "VARCHAR"
    raise SourceError(
        f"{ours} is taken from column {theirs!r}, which holds {kind}; an id is an integer or text: "
        "cast it in a query, or in the files"
    )


def same_as_held(ids: tuple[str, str], held: tuple[str, str] | None) -> None:
    """Refuse ids of other types than the lake's, when it holds some."""
    for ours, kind, before in zip(("user_id", "item_id"), ids, held or ids, strict=True):
        if kind != before:
            words = {"BIGINT": "integers", "VARCHAR": "text"}
            raise SourceError(
                f"{ours} of the source holds {words[kind]}, but the lake holds {words[before]}; "
                "cast it at the source, or start a lake of its own for it"
            )


def define_macros(
    con: duckdb.DuckDBPyConnection,
    user: str,
    item: str,
    timestamp: str,
    value: str,
    *,
    marked: bool = False,
) -> None:
    """Define what sql/ingest/stage.sql needs for a source's types.

    ``marked`` says that rows with ids that can't be of their type have a fault by now.
    """
    con.execute(load("ingest/moment_of_number"))
    cast = "try_cast" if marked else "cast"
    kept = "given"
    if timestamp.startswith("TIMESTAMP") or timestamp == "DATE":
        # The session's time zone is UTC, so a timestamp without one is taken as UTC.
        # DuckDB 2.0 has no isfinite of a TIMESTAMPTZ_NS.
        finite = "isfinite(cast(given as timestamptz))"
        moment = f"case when {finite} then cast(given as timestamptz) end"
        kept = f"case when not {finite} then cast(given as varchar) end"
    elif timestamp in INTEGER_TYPES or type_family(timestamp) == "real numbers":
        moment = "moment_of_number(given)"
    elif timestamp == "VARCHAR":
        con.execute(load("ingest/moment_of_text"))
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


def row_as_json(con: duckdb.DuckDBPyConnection, names: Mapping[str, str]) -> None:
    """Define the macro that gives a staged row as JSON under the source's own names."""
    ours = (*columns.REQUIRED, *columns.OPTIONAL)
    pairs = ", ".join(f"{literal(names[name])}, {quote(name)}" for name in ours if name in names)
    con.execute(
        f"create or replace temp macro row_as_json({', '.join(map(quote, ours))}) as "
        f"cast(json_object({pairs}) as varchar)"
    )


def as_schema(schema: pa.Schema, rows: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    """Stream a relation as a table's schema has it."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows.to_arrow_reader(_ROWS_AT_A_TIME):
            arrays = [batch[field.name].cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def rows_in(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """Count the rows of a table of ours."""
    return int(con.execute(f"select count(*) from {table}").fetchall()[0][0])  # noqa: S608 - names are quoted


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn DuckDB's errors into ours, which name what could not be read."""
    try:
        yield
    except duckdb.Error as error:
        raise SourceError(f"{name} can't be read: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return what an error says, less the parts for DuckDB's own developers."""
    return str(error).strip().splitlines()[0]
