"""Rows of any source on their way in: which column is which, of what types, and ``staged_rows``."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from recsys import columns
from recsys.errors import SourceError
from recsys.ingest.ids import (
    BYTES,
    IDS,
    NO_TYPE,
    TYPE_WORDS,
    IdTypes,
    cast_id,
    decoded,
    require_integers,
    set_id_types,
    typed_id_types,
)
from recsys.ingest.timestamps import define_timestamp_macros
from recsys.lake.engine import column_types, first_line, type_family
from sql import literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recsys.ingest.column_map import ColumnMap
    from recsys.settings import Source

# What an optional column may be of: type families.
_NUMBERS = {"integers", "real numbers", "text", "BOOLEAN", "JSON", NO_TYPE}
_FIT = {
    columns.VALUE: (_NUMBERS, "numbers"),
    columns.EVENT: (_NUMBERS | {"timestamps", "TIME", BYTES}, "text"),
}
_READER_ROWS = 100_000  # as many as the Delta writer may hold several of


@dataclass(frozen=True)
class StagedBatch:
    """What `staged_rows` holds: how many rows, the types of their ids, and from which columns."""

    rows: int
    id_types: IdTypes
    columns: ColumnMap

    def explain(self) -> str:
        """Say in one line what was understood of the source."""
        notes = {ours: TYPE_WORDS[getattr(self.id_types, ours)] for ours in IDS}
        ours = (*columns.REQUIRED, *columns.OPTIONAL)
        return self.columns.noted(notes).explain(columns.INTERACTIONS, self.rows, ours)


def stage_typed(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    column_map: ColumnMap,
    source: Source,
    lake_types: IdTypes | None,
) -> StagedBatch:
    """Fill ``staged_rows`` from a relation that has types of its own.

    Args:
        con: the connection that ``staged_rows`` is made in.
        relation: something to select from.
        column_map: which of the relation's columns are ours.
        source: the types of ids and the unit of timestamps that are set for it.
        lake_types: the types of ids in the lake, where it has some.

    Raises:
        SourceError: a column's type does not fit.
    """
    source_types = column_types(con, relation)
    column_map = _without_unfit(con, relation, column_map, source_types)
    names = column_map.names
    types = {ours: source_types[theirs] for ours, theirs in names.items()}
    for ours in IDS:
        require_integers(ours, types[ours], source, lake_types)
    id_types = typed_id_types(names, types, set_id_types(source, lake_types))
    inputs = {columns.EVENT: "null::varchar", columns.VALUE: "null::double"}
    inputs |= {ours: quote(theirs) for ours, theirs in names.items()}
    for ours in (columns.TIMESTAMP, columns.EVENT):
        if types.get(ours) == BYTES:  # what is not UTF-8 becomes its escapes
            inputs[ours] = f"coalesce({decoded(inputs[ours])}, {inputs[ours]}::varchar)"
            types[ours] = "VARCHAR"
    selected = ", ".join(
        f"{inputs[ours]} as {quote(ours)}" for ours in (*columns.REQUIRED, *columns.OPTIONAL)
    )
    define_row_as_json(con, names)
    con.execute(load("ingest/create_integer_of_text"))
    casts = [cast_id(ours, ours, types[ours], getattr(id_types, ours)) for ours in IDS]
    faults = [f"when {cast.is_lost} then {literal(cast.fault)}" for cast in casts]
    con.execute(
        "create or replace temp view recsys_source_rows as select *, null::bigint as source_row, "  # noqa: S608 - names are quoted
        f"case {' '.join(faults)} end::varchar as fault, "
        f"case when {' or '.join(f'({cast.is_lost})' for cast in casts)} "
        "then row_as_json(user_id, item_id, timestamp, event, value) end as raw_row "
        f"from (select {selected} from {relation})"
    )
    as_user, as_item = (
        cast_id(ours, "input", types[ours], getattr(id_types, ours)).value for ours in IDS
    )
    define_type_macros(con, id_types, as_user, as_item, types.get("value", "DOUBLE"))
    note = define_timestamp_macros(
        con, types["timestamp"], source.timestamp_unit, names["timestamp"]
    )
    con.execute(load("ingest/create_staged_rows"))
    rows = count_rows(con, "memory.main.staged_rows")
    return StagedBatch(rows, id_types, column_map.noted({"timestamp": note} if note else {}))


def _without_unfit(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    column_map: ColumnMap,
    source_types: Mapping[str, str],
) -> ColumnMap:
    """Leave out a column of values without numbers, such as dates, and one of events as lists."""
    for ours, (fit, what) in _FIT.items():
        theirs = column_map.names.get(ours)
        if theirs is None or type_family(source_type := source_types[theirs]) in fit:
            continue
        ((values,),) = con.execute(
            f"select count({quote(theirs)}) from {relation}"  # noqa: S608 - names are quoted
        ).fetchall()
        column_map = column_map.without(ours, f"{values:,} values of {source_type} are not {what}")
    return column_map


def define_type_macros(
    con: duckdb.DuckDBPyConnection, id_types: IdTypes, as_user: str, as_item: str, value: str
) -> None:
    """Define the macros of sql/ingest/create_staged_rows.sql that don't concern timestamps.

    Args:
        con: where to define them.
        id_types: what ids become.
        as_user: SQL that makes a user's id of ``input``.
        as_item: SQL that makes an item's id of ``input``.
        value: the source's type of values.
    """
    for name, body in {
        "as_user": as_user,
        "as_item": as_item,
        "user_text": "input" if id_types.user_id == "VARCHAR" else "null::varchar",
        "item_text": "input" if id_types.item_id == "VARCHAR" else "null::varchar",
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
    except duckdb.PermissionException as error:
        raise SourceError(
            f"{name} can't be read: {first_line(error)}. A query or a view of a DuckDB source "
            "reaches that file alone: put what it needs into the file as a table"
        ) from error
    except duckdb.Error as error:
        raise SourceError(f"{name} can't be read: {first_line(error)}") from error
