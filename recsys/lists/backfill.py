"""Which run_dates of a span still need lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from recsys.errors import ConfigurationError
from recsys.lake.bound import Bound
from recsys.lists.editions import all_editions, current_of

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.lists.editions import EditionRow
    from recsys.settings import AsOf, Settings

_MOST_DAYS = 3660


@dataclass(frozen=True)
class PlannedDate:
    """A run_date of a backfill.

    Attributes:
        run_date: the day.
        bound: what its lists may know.
        standing: the edition that stands, current or withdrawn; None where lists are to be made.
    """

    run_date: date
    bound: Bound
    standing: EditionRow | None

    def __str__(self) -> str:
        """Say what is planned."""
        if self.standing:
            row = self.standing
            return f"{self.run_date}: stands (edition {row.edition}, {row.status})"
        return f"{self.run_date}: to be made, {self.bound}"


def plan_backfill(
    lake: Lake, settings: Settings, first: date, last: date, as_of: AsOf | None = None
) -> list[PlannedDate]:
    """Return the dates from ``first`` to ``last``, in order, and what stands on each.

    Raises:
        ConfigurationError: the span is empty, too long, or ends in the future.
        LakeError: `editions` can't be read.
    """
    settings.check_run_date(last)
    days = (last - first).days + 1
    if not 0 < days <= _MOST_DAYS:
        raise ConfigurationError(
            f"a backfill goes from one day to the same or a later one, over at most {_MOST_DAYS:,} "
            f"days; {first} to {last} does not"
        )
    editions: dict[date, list[EditionRow]] = {}
    for row in all_editions(lake):
        editions.setdefault(row.run_date, []).append(row)
    return [
        PlannedDate(day, Bound.of(settings, day, as_of), _standing(editions.get(day, [])))
        for day in (first + timedelta(days=number) for number in range(days))
    ]


def _standing(editions: list[EditionRow]) -> EditionRow | None:
    return current_of(editions) or (editions[-1] if editions else None)
