"""Editions: what was published for a run_date, in which order, and which of it is served.

Lists that were served are never replaced silently: other lists for the same run_date are a new
edition beside them. The rows of an edition come first, its row in `editions` after them: that row
is the commit point, and rows without one are shown by nothing. A run that was killed in between is
repaired by the next one on that date, which writes the same edition again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from recsys import columns
from recsys.lake.engine import open_duckdb
from sql import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from recsys.lake.bound import Bound
    from recsys.lake.tables import Lake
    from recsys.settings import Events, Experiment, Recommending, Rules

Status = Literal["current", "superseded", "withdrawn"]
"""A current edition is served, a later one replaced a superseded one, a withdrawn one was taken
back."""


@dataclass(frozen=True)
class ListInputs:
    """All that decides the lists of a run_date: the same inputs make the same lists.

    Attributes:
        run_date: the day that the lists are for.
        model_id: the champion; None where popularity serves everyone.
        interactions_version: version of `interactions`.
        bound: which of its rows.
        items_version: version of `items`.
        recommending: the settings, of which some change no list.
        events: what is learnt from, and what counts as had.
        rules: what a shop asks of every list.
        experiment: another model for some users; None without one.
        code_version: the code that makes them.
    """

    run_date: date
    model_id: str | None
    interactions_version: int
    bound: Bound
    items_version: int
    recommending: Recommending
    events: Events
    rules: Rules
    code_version: str
    experiment: Experiment | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what `editions.inputs` holds of it, which JSON can carry."""
        bound = self.bound
        return {
            "model_id": self.model_id,
            "interactions_version": self.interactions_version,
            "data_until": bound.until.isoformat(),
            "as_of": bound.as_of.isoformat() if bound.as_of else None,
            "items_version": self.items_version,
            **self.recommending.decides,
            **self.events.as_dict(),
            **self.rules.as_dict(),
            **(self.experiment.as_dict() if self.experiment else {}),
            "code_version": self.code_version,
        }


@dataclass(frozen=True)
class ListCounts:
    """How many lists there are.

    Attributes:
        users: users with a list.
        rows: rows, one per item of a list.
        popular_users: users whose whole list comes from popularity.
        without_list: users with interactions but without a list: no item was left.
        eligible_items: items that could be listed.
    """

    users: int
    rows: int
    popular_users: int
    without_list: int
    eligible_items: int | None = None


@dataclass(frozen=True)
class EditionRow:
    """A row of `editions`; the data dictionary (`recsys.lake.schemas`) says what columns mean.

    Of lists that were published before there were editions, much is not known.
    """

    run_date: date
    edition: int
    status: Status
    run_id: str | None
    model_id: str | None
    interactions_version: int | None
    data_until: datetime | None
    as_of: datetime | None
    users: int | None
    popular_users: int | None
    without_list: int | None
    rows: int | None
    inputs: str | None
    why: str | None
    who: str | None
    changed_at: datetime | None
    published_at: datetime | None
    eligible_items: int | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"edition {self.edition} of {self.run_date}"


def all_editions(lake: Lake) -> list[EditionRow]:
    """Return every row of `editions`, by run_date and edition; none where the lake is empty.

    Raises:
        LakeError: the table can't be read.
    """
    if not lake.exists(columns.EDITIONS):
        return []
    table = lake.rows(columns.EDITIONS, [field.name for field in fields(EditionRow)])
    rows = [EditionRow(**row) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row.run_date, row.edition))


def editions_of(lake: Lake, run_date: date) -> list[EditionRow]:
    """Return the editions of a run_date, oldest first."""
    return [row for row in all_editions(lake) if row.run_date == run_date]


def current_of(editions: Iterable[EditionRow]) -> EditionRow | None:
    """Return the edition that is served, of those of one run_date."""
    return next((row for row in editions if row.status == "current"), None)


def write_editions(
    lake: Lake, editions: list[EditionRow], note: Mapping[str, Any] | None = None
) -> None:
    """Replace the rows of one run_date by these, all of it, in one commit with a note."""
    records = [asdict(row) for row in editions]
    table = pa.Table.from_pylist(records, schema=lake.schema(columns.EDITIONS))
    lake.replace(columns.EDITIONS, table, where=of_date(editions[0].run_date), note=note)


def as_edition(lake: Lake, table: str, rows: pa.Table, run_date: date, edition: int) -> pa.Table:
    """Return rows of an edition as a table of the lake has them, with its day and number."""
    schema = lake.schema(table)
    shared = {
        "run_date": pa.repeat(pa.scalar(run_date, pa.date32()), len(rows)),
        "edition": pa.repeat(pa.scalar(edition, pa.int32()), len(rows)),
    }
    arrays = [shared[name] if name in shared else rows[name] for name in schema.names]
    return pa.table(arrays, schema=schema)


def of_date(run_date: date) -> str:
    """Return the predicate of a run_date's rows, for Delta."""
    return f"run_date = '{run_date.isoformat()}'"


def stored_rows(lake: Lake, row: EditionRow) -> int:
    """Return how many rows of an edition are there: some, or all, may have been deleted since.

    Raises:
        LakeError: `recommendations` can't be read.
    """
    with open_duckdb(lake.limits) as con:
        lake.view(con, columns.RECOMMENDATIONS, where=of_date(row.run_date))
        parameters = {"run_date": row.run_date, "edition": row.edition}
        ((count,),) = con.execute(load("lists/edition_rows"), parameters).fetchall()
    return int(count)
