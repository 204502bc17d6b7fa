"""A table in a DuckDB file of the user's: one transaction puts a day's rows in place.

Another process that has the file open, a reader too, keeps us out: we wait for it.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from recsys.errors import SinkError
from recsys.lake.engine import column_types, first_line, open_duckdb
from recsys.lists.sinks.target import (
    DELIVERIES,
    STAMPED,
    Contents,
    Stamp,
    check_written,
    measure,
    read_files,
    told_columns,
)
from recsys.signals import is_stopping
from sql import load, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from recsys.settings import Settings, Sink

_POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


class DuckDBTarget:
    """A table in a DuckDB file; see the module.

    Args:
        sink: the file, and the table.
        settings: the machine's limits.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._sink, self._settings = sink, settings
        self._schema = self._table = ""  # named once the file is open

    def stamps(self, days: Collection[date]) -> dict[date, Stamp]:
        """Return the stamps of those of the days that were delivered; see `Target`."""
        with self._open() as con:
            if not self._exists(con, DELIVERIES):
                return {}
            rows = con.execute(
                f"select {STAMPED} from {DELIVERIES} where table_name = $table",  # noqa: S608 - our names
                {"table": self._sink.table},
            ).fetchall()
        stamps = (Stamp(*row) for row in rows)
        return {stamp.run_date: stamp for stamp in stamps if stamp.run_date in days}

    def measure(self, run_date: date) -> Contents | None:
        """Read back what the table has of a day; None where there is no such table."""
        with self._open() as con:
            exists = self._exists(con, self._sink.table)
            return self._measure(con, run_date) if exists else None

    def replace(self, stamp: Stamp, files: list[Path]) -> None:
        """Delete and insert the day's rows, read them back and stamp them, in one transaction."""
        rows = f"select $day::date as run_date, * from {read_files(files)}"  # noqa: S608 - literals
        day = {"day": stamp.run_date}
        with self._transaction() as con:
            self._create_table(con, files)
            con.execute(f"delete from {self._table} where run_date = $day", day)  # noqa: S608 - quoted
            con.execute(f"insert into {self._table} by name {rows}", day)
            check_written(stamp, self._measure(con, stamp.run_date), self._sink.to)
            self._stamp(con, stamp)

    def restamp(self, stamp: Stamp) -> None:
        """Put a stamp in place of the day's."""
        with self._transaction() as con:
            self._stamp(con, stamp)

    def remove(self, run_date: date) -> None:
        """Delete a day's rows and their stamp, in one transaction."""
        with self._transaction() as con:
            con.execute(f"delete from {self._table} where run_date = $day", {"day": run_date})  # noqa: S608 - quoted
            self._unstamp(con, run_date)

    def _create_table(self, con: duckdb.DuckDBPyConnection, files: list[Path]) -> None:
        """Make the table where it is missing; refuse one of other columns."""
        wanted = {"run_date": "DATE", **column_types(con, read_files(files))}
        if not self._exists(con, self._sink.table):
            con.execute(f"create schema if not exists {self._schema}")
            columns = ", ".join(f"{quote(name)} {kind}" for name, kind in wanted.items())
            con.execute(f"create table {self._table} ({columns})")
        found = column_types(con, self._table)
        if found != wanted:
            raise SinkError(
                f"{self._sink.to}: the table {self._sink.table} has other columns than lists have "
                f"({told_columns(found)}; wanted: {told_columns(wanted)}). "
                f"Name another table in the sink {self._sink.name}, or drop this one"
            )

    def _name_table(self, con: duckdb.DuckDBPyConnection) -> None:
        """Name the table with what DuckDB calls the file: a schema may be called the same."""
        ((file,),) = con.execute("select current_database()").fetchall()
        *schema, table = self._sink.table.split(".")
        self._schema = f"{quote(file)}.{quote(schema[0] if schema else 'main')}"
        self._table = f"{self._schema}.{quote(table)}"

    def _exists(self, con: duckdb.DuckDBPyConnection, table: str) -> bool:
        *schema, name = table.split(".")
        found = con.execute(
            "select 1 from duckdb_tables() where table_name = $name and schema_name = $schema "
            "and database_name = current_database()",
            {"name": name, "schema": schema[0] if schema else "main"},
        )
        return found.fetchone() is not None

    def _measure(self, con: duckdb.DuckDBPyConnection, run_date: date) -> Contents:
        relation = f"{self._table} where run_date = date '{run_date.isoformat()}'"
        return measure(con, relation)

    def _stamp(self, con: duckdb.DuckDBPyConnection, stamp: Stamp) -> None:
        self._unstamp(con, stamp.run_date)
        marks = ", ".join("?" for _ in fields(Stamp))
        con.execute(
            f"insert into {DELIVERIES} (table_name, {STAMPED}) values (?, {marks})",  # noqa: S608 - our names
            [self._sink.table, *astuple(stamp)],
        )

    def _unstamp(self, con: duckdb.DuckDBPyConnection, run_date: date) -> None:
        con.execute(
            f"delete from {DELIVERIES} where table_name = ? and run_date = ?",  # noqa: S608 - our name
            [self._sink.table, run_date],
        )

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._open() as con:
            con.execute("begin")  # what is not committed goes with the connection
            if not self._exists(con, DELIVERIES):
                con.execute(load("lists/create_deliveries"))
            yield con
            con.execute("commit")

    @contextmanager
    def _open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file; wait for another process that has it.

        Raises:
            SinkError: it has it for too long, or the file can't be opened or written.
        """
        path = Path(self._sink.to)
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._sink.wait.total_seconds()
        is_told = is_open = False
        while True:
            try:
                with open_duckdb(self._settings, path) as con:
                    is_open = True
                    self._name_table(con)
                    yield con
                return
            except duckdb.Error as error:
                holder = None if is_open else _holder(error)
                if holder is None or is_stopping():
                    raise SinkError(f"{path}: {first_line(error)}") from error
                if time.monotonic() > deadline:
                    raise SinkError(
                        f"{path}: {holder} has had the file open for over "
                        f"{self._sink.wait.total_seconds():.0f} s; close it there, then: "
                        "recsys deliver",
                        transient=True,
                    ) from error
                if not is_told:
                    seconds = self._sink.wait.total_seconds()
                    _log.warning("%s has %s open; waiting up to %.0f s", holder, path, seconds)
                    is_told = True
                time.sleep(_POLL_SECONDS)


def _holder(error: duckdb.Error) -> str | None:
    """Return who has a file open, by DuckDB's words; None where it is another fault."""
    if "Could not set lock" not in str(error):
        return None
    found = re.search(r"held in (.+?\(PID \d+\))", str(error))
    return found[1] if found else "another process"
