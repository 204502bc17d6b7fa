"""DuckDB: the only place that opens it, and what it reads Delta tables with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from recsys.temporary import temporary_folder
from sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deltalake import DeltaTable

    from recsys.settings import Settings

# Of every DuckDB that works on a lake or its catalog.
ENGINE = {
    "autoinstall_known_extensions": "false",
    "scheduler_process_partial": "true",  # or a signal waits until a whole scan has ended
}


INTEGER_TYPES = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
INTEGER_TYPES |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}


@contextmanager
def open_duckdb(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB that spills to disk, speaks UTC and never fetches an extension."""
    with temporary_folder() as folder:
        config: dict[str, Any] = {
            "memory_limit": settings.memory_limit,
            **ENGINE,
            "temp_directory": str(folder / "spill"),
            **({"threads": str(settings.threads)} if settings.threads else {}),
        }
        with duckdb.connect(config=config) as con:
            con.execute("SET TimeZone = 'UTC'")
            yield con


def select_files(table: DeltaTable, files: Sequence[str] | None = None) -> str:
    """Return a SELECT over the Parquet files of a table's version, or over some of them.

    Empty tables included.
    """
    schema = pa.schema(table.schema())
    files = table.file_uris() if files is None else files
    if not files:
        nothing = ", ".join(
            f"NULL::{_duckdb_type(field.type)} AS {quote(field.name)}" for field in schema
        )
        return f"SELECT {nothing} WHERE false"
    listed = ", ".join(literal(unquote(uri)) for uri in files)
    names = ", ".join(quote(name) for name in schema.names)
    partitioned = bool(table.metadata().partition_columns)
    return (  # names are quoted, paths are literals
        f"SELECT {names} FROM read_parquet([{listed}], union_by_name = true, "  # noqa: S608
        f"hive_partitioning = {str(partitioned).lower()})"
    )


def _duckdb_type(kind: pa.DataType) -> str:
    with duckdb.connect() as con:
        con.register("t", pa.table({"c": pa.array([], kind)}))
        return str(con.sql("from t").types[0])


def column_types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return column -> DuckDB type of something to select from."""
    there = con.sql(f"select * from {relation} limit 0")  # noqa: S608 - names are quoted
    return dict(zip(there.columns, map(str, there.types), strict=True))


def type_family(kind: str) -> str:
    """Say what a DuckDB type holds: integers, reals, moments, text, or the type's own name."""
    if kind in INTEGER_TYPES:
        return "integers"
    if kind.startswith(("DECIMAL", "FLOAT", "DOUBLE")):
        return "real numbers"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return "moments"
    return "text" if kind.startswith(("VARCHAR", "ENUM", "UUID")) else kind
