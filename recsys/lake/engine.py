"""DuckDB: the only place that opens it, and what it reads Delta tables with."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from recsys.lake.faults import explain_store_errors_of_duckdb
from recsys.settings import Settings
from recsys.signals import interruptible
from recsys.temporary import temporary_folder
from sql import literal, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from deltalake import DeltaTable

_OPTIONS = {
    "autoinstall_known_extensions": "false",
    "scheduler_process_partial": "true",  # or a signal waits until a whole scan has ended
    "storage_compatibility_version": "v1.0.0",  # of files, so that every later DuckDB reads them
}

INTEGER_TYPES = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
INTEGER_TYPES |= {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"}


@dataclass(frozen=True)
class Limits:
    """What one DuckDB may use of the machine; fields as in the settings."""

    memory_limit: str = Settings.model_fields["memory_limit"].default
    threads: int = Settings.model_fields["threads"].default


@contextmanager
def open_duckdb(
    limits: Limits | Settings, file: Path | None = None, *, read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB that keeps to its limits, speaks UTC and never fetches an extension.

    What does not fit in memory spills into a temporary folder. A request to stop interrupts a query
    that runs, see `recsys.signals`.

    Args:
        limits: threads and memory.
        file: the database; in memory without one.
        read_only: whether the file is opened for reading alone.

    Raises:
        LakeError: in the block, DuckDB could not read an object of S3.
    """
    with temporary_folder() as folder, explain_store_errors_of_duckdb():
        config: dict[str, Any] = {
            "memory_limit": limits.memory_limit,
            **_OPTIONS,
            "temp_directory": str(folder / "spill"),
            **({"threads": str(limits.threads)} if limits.threads else {}),
        }
        with duckdb.connect(file or ":memory:", read_only=read_only, config=config) as con:
            con.execute("SET TimeZone = 'UTC'")
            with interruptible(con.interrupt):
                yield con


@contextmanager
def open_cursor(con: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a second connection to the same database; it is interrupted on its own."""
    with con.cursor() as cursor, interruptible(cursor.interrupt):
        yield cursor


def confine(
    con: duckdb.DuckDBPyConnection, folders: Sequence[str], files: Sequence[str] = ()
) -> None:
    """Let a connection reach these folders and files alone, for good.

    Nothing else of the machine, no network, no extension and no variable of Python is in reach of
    what it runs from now on.
    """
    con.execute("set python_enable_replacements = false")
    for name, allowed in (("allowed_directories", folders), ("allowed_paths", files)):
        con.execute(f"set {name} = [{', '.join(map(literal, allowed))}]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


def clean_up(con: duckdb.DuckDBPyConnection, *statements: str) -> None:
    """Run statements that only tidy up, where the connection can still run any.

    A request to stop may interrupt them, or have closed the connection before.
    """
    with suppress(duckdb.ConnectionException, duckdb.InterruptException):
        for statement in statements:
            con.execute(statement)


def select_files(
    con: duckdb.DuckDBPyConnection, table: DeltaTable, files: Sequence[str] | None = None
) -> str:
    """Return a SELECT over the Parquet files of a table's version, or over some of them.

    Empty tables included. A column that was added to the table is null where no file has it yet.
    ``con`` says what types are called.
    """
    schema = pa.schema(table.schema())
    files = table.file_uris() if files is None else files
    types = con.from_arrow(schema.empty_table()).types
    nulls = ", ".join(
        f"NULL::{kind} AS {quote(name)}" for name, kind in zip(schema.names, types, strict=True)
    )
    no_rows = f"SELECT {nulls} WHERE false"
    if not files:
        return no_rows
    names = ", ".join(map(quote, schema.names))
    listed = ", ".join(literal(unquote(uri)) for uri in files)
    partitions = table.metadata().partition_columns
    options = [f"hive_partitioning = {str(bool(partitions)).lower()}"]
    if not _have_all_columns(table, set(schema.names) - set(partitions)):
        options.append("union_by_name = true")
    return (  # names are quoted, paths are literals; DuckDB drops the branch without rows
        f"SELECT {names} FROM ({no_rows} UNION ALL BY NAME "  # noqa: S608
        f"SELECT * FROM read_parquet([{listed}], {', '.join(options)}))"
    )


def without_matching(rows: pa.Table, where: str, limits: Limits) -> pa.Table:
    """Return the rows for which a predicate of Delta does not hold."""
    with open_duckdb(limits) as con:
        con.register("stored", rows)
        return con.sql(f"select * from stored where ({where}) is not true").to_arrow_table()  # noqa: S608 - our own predicate


def _have_all_columns(table: DeltaTable, names: Collection[str]) -> bool:
    """Say whether the statistics in a table's log prove that each of its files has these columns.

    Where they don't, DuckDB has to open every file before it knows the columns: each time that a
    view is made or a query asks for it, even if it then reads one of them.
    """
    files = pa.table(table.get_add_actions(flatten=True))
    counts = [f"null_count.{name}" for name in names]
    return all(name in files.column_names and not files[name].null_count for name in counts)


def column_types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return column -> DuckDB type of something to select from."""
    rows = con.sql(f"select * from {relation} limit 0")  # noqa: S608 - names are quoted
    return dict(zip(rows.columns, map(str, rows.types), strict=True))


def first_line(error: Exception) -> str:
    """Return what an error says, less the parts for DuckDB's own developers."""
    return str(error).strip().splitlines()[0]


def type_family(kind: str) -> str:
    """Say what a DuckDB type holds: integers, real numbers, timestamps, text, or its own name."""
    if kind.endswith("]"):  # a list, whatever it holds
        return kind
    if kind in INTEGER_TYPES:
        return "integers"
    if kind.startswith(("DECIMAL", "FLOAT", "DOUBLE")):
        return "real numbers"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return "timestamps"
    return "text" if kind.startswith(("VARCHAR", "ENUM", "UUID")) else kind
