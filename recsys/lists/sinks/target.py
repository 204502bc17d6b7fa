"""What every kind of sink does, and the stamp by which it knows what was delivered."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

from recsys.errors import SinkError
from sql import file_literal, load

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date, datetime
    from pathlib import Path

    import duckdb

    from recsys.lists.editions import EditionRow

DELIVERIES = "recsys_deliveries"
"""The table of a database, beside the lists, that holds the stamps."""


@dataclass(frozen=True)
class Contents:
    """How many rows there are, and a hash of them that their order does not change."""

    rows: int
    hash: str


@dataclass(frozen=True)
class Stamp:
    """What a sink says of a run_date that it has: it stands beside the lists, not in the lake.

    Attributes:
        run_date: the day that the lists are for.
        edition: which of its editions.
        rows: rows of the sink.
        hash: of these rows, as sql/lists/list_hash.sql has it.
        lake_rows: rows of all editions of the day in the lake at that time. Other rows, or another
            edition, are the sign that the sink may be behind.
        run_id: the run that made the lists.
        delivered_at: when they were delivered.
    """

    run_date: date
    edition: int
    rows: int
    hash: str
    lake_rows: int
    run_id: str | None
    delivered_at: datetime

    @property
    def contents(self) -> Contents:
        """What the sink should have."""
        return Contents(self.rows, self.hash)

    def is_of(self, edition: EditionRow, lake_rows: int) -> bool:
        """Say whether it is of what the lake has."""
        return (self.edition, self.lake_rows) == (edition.edition, lake_rows)


STAMPED = ", ".join(field.name for field in fields(Stamp))
"""Its columns in `DELIVERIES`, in order."""


class Target(Protocol):
    """A kind of sink. Each change is one step for its readers.

    Raises:
        RecsysError: in each method, the place can't be read or written.
    """

    def stamps(self, days: Collection[date]) -> dict[date, Stamp]:
        """Return the stamps of those of the days that were delivered."""

    def measure(self, run_date: date) -> Contents | None:
        """Read back what there is of a day; None where it is not whole."""

    def replace(self, stamp: Stamp, files: list[Path]) -> None:
        """Put the rows of Parquet files in place of the day's, and read them back."""

    def restamp(self, stamp: Stamp) -> None:
        """Put a stamp in place of the day's, whose rows stay."""

    def remove(self, run_date: date) -> None:
        """Remove a day."""


def measure(con: duckdb.DuckDBPyConnection, relation: str) -> Contents:
    """Count and hash rows of something to select from."""
    con.execute(f"create or replace temp view delivered as select * from {relation}")  # noqa: S608 - callers quote
    ((rows, total),) = con.execute(load("lists/list_hash")).fetchall()
    return Contents(int(rows), f"{int(total) % 2**64:016x}")


def read_files(files: Collection[Path]) -> str:
    """Return what selects the rows of Parquet files."""
    listed = ", ".join(file_literal(str(file)) for file in files)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def told_columns(columns: dict[str, str]) -> str:
    """Return columns and their types as an error tells them."""
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def check_written(stamp: Stamp, written: Contents | None, place: str) -> None:
    """Refuse what was read back where it is not what was written.

    Raises:
        SinkError: it is something else.
    """
    if written != stamp.contents:
        found = f"{written.rows:,} rows, hash {written.hash}" if written else "incomplete files"
        raise SinkError(
            f"{place}: the lists of {stamp.run_date} were read back otherwise than written "
            f"({stamp.rows:,} rows, hash {stamp.hash}; read: {found}). Make sure that nothing else "
            "writes there, then: recsys deliver",
            transient=True,
        )
