"""Rows of any source on their way in: which column is which, of what types, and ``staged_rows``."""

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
    from collections.abc import Iterator, Mapping

    from recsys.ingest.column_map import ColumnMap
    from recsys.lake.tables import Lake

# What does not make an id: white space, and marks that show nothing.
BLANKS = " \t\n\r\f\v\u00a0\u2003\u3000\u200b\ufeff"

_IDS = (columns.USER_ID, columns.ITEM_ID)
_WIDER_THAN_OURS = {"HUGEINT", "UBIGINT", "UHUGEINT"}
_READER_ROWS = 100_000  # as many as the Delta writer may hold several of


@dataclass(frozen=True)
class IdTypes:
    """The types of both ids, each BIGINT or VARCHAR: DuckDB's names of what the lake holds."""

    user_id: str
    item_id: str


ARROW_TYPES = {"BIGINT": pa.int64(), "VARCHAR": pa.string()}
DUCKDB_TYPES = {arrow: name for name, arrow in ARROW_TYPES.items()}
# How a batch's profile and a contract name the types of ids.
TYPE_NAMES = {"BIGINT": "integer", "VARCHAR": "text"}
_ID_WORDS = {"BIGINT": "integers", "VARCHAR": "text"}


def lake_id_types(lake: Lake) -> IdTypes | None:
    """Return the types of ids in a lake, or None where no table holds an id yet."""
    if not lake.exists(columns.INTERACTIONS):
        return None
    tables_with_ids = (columns.INTERACTIONS, columns.ITEMS, columns.RECOMMENDATIONS)
    if not any(lake.open(name).file_uris() for name in tables_with_ids):
        return None
    schema = lake.schema(columns.INTERACTIONS)
    return IdTypes(
        DUCKDB_TYPES[schema.field(columns.USER_ID).type],
        DUCKDB_TYPES[schema.field(columns.ITEM_ID).type],
    )


@dataclass(frozen=True)
class StagedBatch:
    """What `staged_rows` holds: how many rows, the types of their ids, and from which columns."""

    rows: int
    id_types: IdTypes
    columns: ColumnMap

    def explain(self) -> str:
        """Say in one line what was understood of the source."""
        id_types = {ours: getattr(self.id_types, ours) for ours in _IDS}
        notes = {ours: _ID_WORDS[kind] for ours, kind in id_types.items()}
        ours = (*columns.REQUIRED, *columns.OPTIONAL)
        return self.columns.noted(notes).explain(columns.INTERACTIONS, self.rows, ours)


def stage_typed(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    column_map: ColumnMap,
    lake_types: IdTypes | None,
) -> StagedBatch:
    """Fill ``staged_rows`` from a relation that has types of its own.

    Args:
        con: the connection that ``staged_rows`` is made in.
        relation: something to select from.
        column_map: which of the relation's columns are ours.
        lake_types: the types of ids in the lake, where it has some.
    """
    source_types = column_types(con, relation)
    column_map = _without_unfit_value(con, relation, column_map, source_types)
    names = column_map.names
    types = {ours: source_types[theirs] for ours, theirs in names.items()}
    id_types = IdTypes(*(id_type(ours, names[ours], types[ours]) for ours in _IDS))
    require_lake_types(id_types, lake_types)
    absent = {columns.EVENT: "null::varchar", columns.VALUE: "null::double"}
    selected = ", ".join(
        f"{quote(names[ours]) if ours in names else absent[ours]} as {quote(ours)}"
        for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    define_row_as_json(con, names)
    wide = [ours for ours in _IDS if types[ours] in _WIDER_THAN_OURS]
    lost = {ours: f"{ours} is not null and try_cast({ours} as bigint) is null" for ours in wide}
    faults = [f"when {is_lost} then '{ours} is beyond 64 bits'" for ours, is_lost in lost.items()]
    con.execute(
        "create or replace temp view recsys_source_rows as select *, null::bigint as source_row, "  # noqa: S608 - names are quoted
        f"case {' '.join(faults) or 'when false then null'} end::varchar as fault, "
        f"case when {' or '.join(lost.values()) or 'false'} "
        "then row_as_json(user_id, item_id, timestamp, event, value) end as raw_row "
        f"from (select {selected} from {relation})"
    )
    define_type_macros(
        con, id_types, types["timestamp"], types.get("value", "DOUBLE"), has_faults=bool(wide)
    )
    con.execute(load("ingest/create_staged_rows"))
    return StagedBatch(count_rows(con, "memory.main.staged_rows"), id_types, column_map)


def _without_unfit_value(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    column_map: ColumnMap,
    source_types: Mapping[str, str],
) -> ColumnMap:
    """Leave out a column of values that holds no numbers, such as dates or lists."""
    theirs = column_map.names.get(columns.VALUE)
    if theirs is None:
        return column_map
    source_type = source_types[theirs]
    if type_family(source_type) in ("integers", "real numbers", "text") or source_type in (
        "BOOLEAN",
        "JSON",
    ):
        return column_map
    ((values,),) = con.execute(f"select count({quote(theirs)}) from {relation}").fetchall()  # noqa: S608 - names are quoted
    return column_map.without(columns.VALUE, f"{values:,} values of {source_type} are not numbers")


def id_type(ours: str, theirs: str, source_type: str) -> str:
    """Return BIGINT or VARCHAR, what an id of a DuckDB type becomes.

    Raises:
        SourceError: an id can't be of this type.
    """
    family = type_family(source_type)
    if family == "integers":
        return "BIGINT"
    if family == "text":
        return "VARCHAR"
    raise SourceError(
        f"{ours} comes from column {theirs!r}, which holds {source_type}; an id is an integer or "
        "text: cast it in a query, or in the files"
    )


def require_lake_types(id_types: IdTypes, lake_types: IdTypes | None) -> None:
    """Refuse ids of other types than the lake's, where it has some."""
    if lake_types is None:
        return
    for ours in _IDS:
        source_type, lake_type = getattr(id_types, ours), getattr(lake_types, ours)
        if source_type != lake_type:
            raise SourceError(
                f"{ours} of the source holds {_ID_WORDS[source_type]}, but the lake holds "
                f"{_ID_WORDS[lake_type]}; cast it at the source, or use another lake for it"
            )


def define_type_macros(
    con: duckdb.DuckDBPyConnection,
    id_types: IdTypes,
    timestamp: str,
    value: str,
    *,
    has_faults: bool = False,
) -> None:
    """Define the macros of sql/ingest/create_staged_rows.sql for the types of a source.

    Args:
        con: where to define them.
        id_types: what ids become.
        timestamp: the source's type of timestamps.
        value: the source's type of values.
        has_faults: whether rows with ids that don't fit their type have a fault by now.

    Raises:
        SourceError: a timestamp can't be of this type.
    """
    con.execute(load("ingest/create_timestamp_of_number"))
    cast = "try_cast" if has_faults else "cast"
    raw_timestamp = "input"
    if timestamp.startswith("TIMESTAMP") or timestamp == "DATE":
        # The session's time zone is UTC, so a timestamp without one is read as UTC.
        # DuckDB 2.0 has no isfinite of a TIMESTAMPTZ_NS.
        is_finite = "isfinite(cast(input as timestamptz))"
        as_timestamp = f"case when {is_finite} then cast(input as timestamptz) end"
        raw_timestamp = f"case when not {is_finite} then cast(input as varchar) end"
    elif timestamp in INTEGER_TYPES or type_family(timestamp) == "real numbers":
        as_timestamp = "timestamp_of_number(input)"
    elif timestamp == "VARCHAR":
        con.execute(load("ingest/create_timestamp_of_text"))
        as_timestamp = "timestamp_of_text(input)"
    else:
        raise SourceError(
            f"timestamp comes from a column that holds {timestamp}; it has to be a timestamp, a "
            "date, epoch seconds or milliseconds, or ISO text: cast it in a query"
        )
    user, item = id_types.user_id, id_types.item_id
    for name, body in {
        "as_user": f"{cast}(input as {user})",
        "as_item": f"{cast}(input as {item})",
        "as_timestamp": as_timestamp,
        "user_text": "input" if user == "VARCHAR" else "null::varchar",
        "item_text": "input" if item == "VARCHAR" else "null::varchar",
        "timestamp_text": raw_timestamp,
        "value_text": "cast(input as varchar)" if type_family(value) == "text" else "null::varchar",
    }.items():
        con.execute(f"create or replace temp macro {name}(input) as {body}")


def define_row_as_json(con: duckdb.DuckDBPyConnection, names: Mapping[str, str]) -> None:
    """Define the macro that gives a staged row as JSON under the source's own names."""
    ours = (*columns.REQUIRED, *columns.OPTIONAL)
    pairs = ", ".join(f"{literal(names[name])}, {quote(name)}" for name in ours if name in names)
    con.execute(
        f"create or replace temp macro row_as_json({', '.join(map(quote, ours))}) as "
        f"cast(json_object({pairs}) as varchar)"
    )


def as_schema(schema: pa.Schema, rows: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    """Stream a relation's rows in a table's schema."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows.to_arrow_reader(_READER_ROWS):
            arrays = [batch[field.name].cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def count_rows(con: duckdb.DuckDBPyConnection, table: str) -> int:
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
