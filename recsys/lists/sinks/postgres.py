"""A table in Postgres: one transaction puts a day's rows in place, by COPY.

The password comes from where libpq looks for it: PGPASSWORD, PGPASSFILE or ~/.pgpass.
"""

from __future__ import annotations

import asyncio
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from recsys.errors import SinkError
from recsys.lake.engine import column_types, open_duckdb
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
from recsys.temporary import temporary_folder
from sql import file_literal, literal, load, quote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from datetime import date
    from pathlib import Path

    from recsys.settings import Settings, Sink

Result = TypeVar("Result")

# DuckDB's type -> that of Postgres, as information_schema has it.
_TYPES = {
    "DATE": "date",
    "BIGINT": "bigint",
    "INTEGER": "integer",
    "FLOAT": "real",
    "VARCHAR": "text",
}
_NULL = r"\N"
_CONNECT_SECONDS = 30.0
_COPIED = {"format": "csv", "null": _NULL}


class PostgresTarget:
    """A table in Postgres; see the module.

    Args:
        sink: the server and database, and the table.
        settings: the machine's limits.
    """

    def __init__(self, sink: Sink, settings: Settings) -> None:
        self._sink, self._settings = sink, settings
        *schema, self._name = sink.table.split(".")
        self._schema = schema[0] if schema else None
        self._table = ".".join(map(quote, sink.table.split(".")))

    def stamps(self, days: Collection[date]) -> dict[date, Stamp]:
        """Return the stamps of those of the days that were delivered; see `Target`."""

        async def work(con: asyncpg.Connection) -> list[Stamp]:
            if not await _exists(con, DELIVERIES):
                return []
            query = f"select {STAMPED} from {DELIVERIES} where table_name = $1"  # noqa: S608 - our names
            return [Stamp(*row) for row in await con.fetch(query, self._sink.table)]

        return {stamp.run_date: stamp for stamp in self._run(work) if stamp.run_date in days}

    def measure(self, run_date: date) -> Contents | None:
        """Read back what the table has of a day; None where there is no such table."""

        async def work(con: asyncpg.Connection) -> Contents | None:
            if not await _exists(con, self._table):
                return None
            return await self._measure(con, run_date)

        return self._run(work)

    def replace(self, stamp: Stamp, files: list[Path]) -> None:
        """Delete and copy the day's rows, read them back and stamp them, in one transaction."""
        with temporary_folder() as folder:
            rows = folder / "rows.csv"
            with open_duckdb(self._settings) as con:
                types = {"run_date": "DATE", **column_types(con, read_files(files))}
                day = f"date '{stamp.run_date.isoformat()}' as run_date"
                con.execute(
                    f"copy (select {day}, * from {read_files(files)}) to "  # noqa: S608 - literals
                    f"{literal(str(rows))} (format csv, header false, nullstr {literal(_NULL)})"
                )

            async def work(con: asyncpg.Connection) -> None:
                await self._begin(con)
                await self._create_table(con, types)
                await con.execute(f"delete from {self._table} where run_date = $1", stamp.run_date)  # noqa: S608 - quoted
                await con.copy_to_table(
                    self._name, schema_name=self._schema, source=rows, columns=[*types], **_COPIED
                )
                check_written(stamp, await self._measure(con, stamp.run_date), self._sink.name)
                await self._stamp(con, stamp)

            self._run(work)

    def restamp(self, stamp: Stamp) -> None:
        """Put a stamp in place of the day's."""

        async def work(con: asyncpg.Connection) -> None:
            await self._begin(con)
            await self._stamp(con, stamp)

        self._run(work)

    def remove(self, run_date: date) -> None:
        """Delete a day's rows and their stamp, in one transaction."""

        async def work(con: asyncpg.Connection) -> None:
            await self._begin(con)
            await con.execute(f"delete from {self._table} where run_date = $1", run_date)  # noqa: S608 - quoted
            await self._unstamp(con, run_date)

        self._run(work)

    def _run(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        """Connect and do some work in one transaction.

        Raises:
            SinkError: the server does not answer, or refuses.
        """

        async def session() -> Result:
            con = await asyncpg.connect(self._sink.to, timeout=_CONNECT_SECONDS)
            try:
                async with con.transaction():
                    return await work(con)
            finally:
                await con.close(timeout=_CONNECT_SECONDS)

        name = self._sink.name
        try:
            return asyncio.run(session())
        except asyncpg.LockNotAvailableError as error:
            raise SinkError(
                f"{name}: another session has held {self._sink.table} for over "
                f"{self._sink.wait.total_seconds():.0f} s; end it (pg_stat_activity has it), then: "
                "recsys deliver",
                transient=True,
            ) from error
        except (asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, OSError) as error:
            raise SinkError(
                f"{name}: the Postgres server can't be reached or went away "
                f"({type(error).__name__}: {error}); see that it runs, then: recsys deliver",
                transient=True,
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SinkError(f"{name}: Postgres refused: {error}") from error

    async def _begin(self, con: asyncpg.Connection) -> None:
        """Keep other deliveries to this table out until the transaction ends."""
        milliseconds = int(self._sink.wait.total_seconds() * 1000)
        await con.execute(f"set local lock_timeout = {max(1, milliseconds)}")
        await con.execute("select pg_advisory_xact_lock(hashtext($1))", DELIVERIES)
        if not await _exists(con, DELIVERIES):
            await con.execute(load("lists/create_deliveries"))

    async def _create_table(self, con: asyncpg.Connection, types: dict[str, str]) -> None:
        """Make the table where it is missing; refuse one of other columns."""
        wanted = {name: _TYPES[kind] for name, kind in types.items()}
        if not await _exists(con, self._table):
            if self._schema:
                await con.execute(f"create schema if not exists {quote(self._schema)}")
            columns = ", ".join(f"{quote(name)} {kind}" for name, kind in wanted.items())
            key = "primary key (run_date, user_id, rank)"
            await con.execute(f"create table {self._table} ({columns}, {key})")
        found = await con.fetch(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum",
            self._table,
        )
        if dict(map(tuple, found)) != wanted:
            raise SinkError(
                f"{self._sink.name}: the table {self._sink.table} has other columns than lists "
                f"have ({told_columns(dict(map(tuple, found)))}; wanted: {told_columns(wanted)}). "
                "Name another table in the sink, or drop this one"
            )

    async def _measure(self, con: asyncpg.Connection, run_date: date) -> Contents:
        """Copy a day's rows out again, and hash them as those of the lake are."""
        statement = await con.prepare(f"select * from {self._table} limit 0")  # noqa: S608 - quoted
        kinds = {postgres: kind for kind, postgres in _TYPES.items()}
        names = {"int8": "bigint", "int4": "integer", "float4": "real"}
        types = {
            column.name: kinds[names.get(column.type.name, column.type.name)]
            for column in statement.get_attributes()
        }
        listed = ", ".join(map(quote, types))
        with temporary_folder() as folder:
            rows = folder / "rows.csv"
            day = literal(run_date.isoformat())
            await con.copy_from_query(
                f"select {listed} from {self._table} where run_date = {day}",  # noqa: S608 - quoted
                output=rows,
                **_COPIED,
            )
            struct = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
            with open_duckdb(self._settings) as duck:
                return measure(
                    duck,
                    f"read_csv({file_literal(str(rows))}, header = false, columns = {{{struct}}}, "
                    f"delim = ',', quote = '\"', escape = '\"', nullstr = {literal(_NULL)}, "
                    "allow_quoted_nulls = false, auto_detect = false)",
                )

    async def _stamp(self, con: asyncpg.Connection, stamp: Stamp) -> None:
        await self._unstamp(con, stamp.run_date)
        marks = ", ".join(f"${nth + 2}" for nth in range(len(fields(Stamp))))
        await con.execute(
            f"insert into {DELIVERIES} (table_name, {STAMPED}) values ($1, {marks})",  # noqa: S608 - our names
            self._sink.table,
            *astuple(stamp),
        )

    async def _unstamp(self, con: asyncpg.Connection, run_date: date) -> None:
        await con.execute(
            f"delete from {DELIVERIES} where table_name = $1 and run_date = $2",  # noqa: S608 - our name
            self._sink.table,
            run_date,
        )


async def _exists(con: asyncpg.Connection, table: str) -> bool:
    return await con.fetchval("select to_regclass($1)", table) is not None
