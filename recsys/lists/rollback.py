"""Serve an earlier edition of a run_date again, or none: what went wrong at night is undone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from recsys import columns
from recsys.errors import ConfigurationError, MissingError
from recsys.lists.editions import current_of, editions_of, stored_rows, write_editions

if TYPE_CHECKING:
    from recsys.lake.tables import Lake
    from recsys.lists.editions import EditionRow


_NOTE = "rollback"
_LOOKED_AT = 20  # commits: a run is tried again within minutes


@dataclass(frozen=True)
class RollbackResult:
    """The result of a rollback of lists.

    Attributes:
        run_date: the day that the lists are for.
        previous_edition: the edition that was served before; None where none was.
        edition: the one that is served now; None where the lists are withdrawn.
        why: the reason that a person gave.
        who: that person.
    """

    run_date: date
    previous_edition: int | None
    edition: int | None
    why: str
    who: str

    def __str__(self) -> str:
        """Say what is served now."""
        if self.edition == self.previous_edition:
            return f"edition {self.edition} of {self.run_date} is current already"
        if self.edition is None:
            return (
                f"edition {self.previous_edition} of {self.run_date} is withdrawn: "
                "latest_recommendations shows the newest run_date before it. To undo this: "
                f"recsys lists rollback --run-date {self.run_date} --to {self.previous_edition}"
            )
        return f"edition {self.edition} of {self.run_date} is current"


def roll_back(
    lake: Lake, run_date: date, *, to: int | None = None, why: str, who: str, run_id: str
) -> RollbackResult:
    """Make another edition of a run_date the current one, in one commit.

    A run that is tried again does it once.

    Args:
        lake: the lake.
        run_date: the day that the lists are for.
        to: the edition, also a later one; the one before the current one when not given. Where
            there is none before it, the lists are withdrawn.
        why: the reason.
        who: who wants it.
        run_id: of the run that does it.

    Raises:
        ConfigurationError: there is no reason, no such edition, or nothing to roll back.
        MissingError: the edition's rows are no longer in the lake.
        LakeError: the lake can't be read or written.
    """
    if not why.strip():
        raise ConfigurationError("lists are rolled back for a reason: say why, it is kept")
    for _, _, note in lake.commits(columns.EDITIONS, _LOOKED_AT):
        if (done := note.get(_NOTE)) and done["run_id"] == run_id:
            return RollbackResult(run_date, done["previous"], done["edition"], why, who)
    editions = editions_of(lake, run_date)
    current = current_of(editions)
    target = _target(editions, current, run_date, to)
    # Of a user who was erased, no edition has rows: only one without any is of no use.
    if target is not None and target.rows and not stored_rows(lake, target):
        raise MissingError(
            f"{target.name} can't be served: its rows are no longer in `recommendations`. "
            f"To make that day's lists again: recsys recommend --run-date {run_date} --replace WHY"
        )
    result = RollbackResult(
        run_date=run_date,
        previous_edition=current.edition if current else None,
        edition=target.edition if target else None,
        why=why,
        who=who,
    )
    if target != current:
        change: dict[str, Any] = {"why": why, "who": who, "changed_at": datetime.now(UTC)}
        changed = [
            replace(row, status="current", **change)
            if row == target
            else replace(row, status="withdrawn", **change)
            if row == current
            else row
            for row in editions
        ]
        told = {"previous": result.previous_edition, "edition": result.edition}
        write_editions(lake, changed, {_NOTE: {"run_id": run_id, **told}})
    return result


def _target(
    editions: list[EditionRow], current: EditionRow | None, run_date: date, to: int | None
) -> EditionRow | None:
    """Return the edition to serve, or None to withdraw the current one."""
    if to is not None:
        for row in editions:
            if row.edition == to:
                return row
        numbers = ", ".join(str(row.edition) for row in editions) or "none"
        raise ConfigurationError(f"{run_date} has no edition {to}; its editions: {numbers}")
    if current is None:
        raise ConfigurationError(
            f"no edition of {run_date} is current, so there is nothing to roll back; give one with "
            "--to to serve it (`recsys lists show` has them)"
        )
    return max(
        (row for row in editions if row.edition < current.edition and row.status == "superseded"),
        key=lambda row: row.edition,
        default=None,
    )
