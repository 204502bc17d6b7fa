"""Which model served when: the table `promotions`, one row per change of champion.

`models.status` says who serves now, and the commit of `models` that changes it is the one that
counts. It carries the row of `promotions` as its note, and that row is written right after it. A
run that is killed between the two leaves the right champion and a row that is missing: whoever
reads here finds it in the note, and the next change of champion writes it before its own.

A lake of an earlier release has champions without a row. There each of them counts as serving from
when it was trained, and the next change of champion writes that down first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from recsys import columns
from recsys.errors import MissingError
from recsys.registry.models import find_champion, model_rows

if TYPE_CHECKING:
    from typing import Self

    from recsys.lake.tables import Lake
    from recsys.registry.models import ModelRow

Action = Literal["gate", "promote", "rollback"]

_NOTE = "promotion"  # its key in the note of a commit of `models`


@dataclass(frozen=True)
class Promotion:
    """A row of `promotions`; the data dictionary (`recsys.lake.schemas`) says what it means."""

    promoted_at: datetime
    action: Action
    model_id: str | None
    previous_model_id: str | None
    who: str | None
    why: str | None
    run_id: str | None

    def as_note(self) -> dict[str, Any]:
        """Return what the commit of `models` carries, see `from_note`."""
        return {_NOTE: {**asdict(self), "promoted_at": self.promoted_at.isoformat()}}

    @classmethod
    def from_note(cls, note: dict[str, Any]) -> Self | None:
        """Return the promotion that a commit of `models` carries; None where it carries none."""
        if _NOTE not in note:
            return None
        values = note[_NOTE]
        return cls(**{**values, "promoted_at": datetime.fromisoformat(values["promoted_at"])})


def promotions(lake: Lake) -> list[Promotion]:
    """Return every change of champion, oldest first, with those that are not written down yet.

    Raises:
        LakeError: the lake can't be read.
    """
    recorded = _recorded(lake)
    return [*recorded, *_not_recorded(lake, recorded)]


def champion_at(lake: Lake, when: datetime) -> ModelRow | None:
    """Return the champion that served at a time, or None where popularity did alone.

    Of a time that is not over yet, it is the champion of now.

    Raises:
        MissingError: the model that served then is not in `models` any more.
        LakeError: the lake can't be read.
    """
    if when >= datetime.now(UTC):
        return find_champion(lake)
    model_id = None
    for promotion in promotions(lake):
        if promotion.promoted_at <= when:
            model_id = promotion.model_id
    if model_id is None:
        return None
    for row in model_rows(lake):
        if row.model_id == model_id:
            return row
    raise MissingError(
        f"model {model_id} served at {when:%Y-%m-%d %H:%M} UTC, and `models` has no row of it any "
        "more"
    )


def champion_before(history: list[Promotion]) -> str | None:
    """Return the model that a rollback goes back to; None where popularity served before.

    A rollback takes the newest promotion back, so that a second one goes back one further.
    """
    champions: list[str | None] = []
    for promotion in history:
        if promotion.action == "rollback":
            champions = champions[:-1]
        else:
            champions.append(promotion.model_id)
    return champions[-2] if len(champions) > 1 else None


def record_missing(lake: Lake) -> list[Promotion]:
    """Write the rows that a killed run or an earlier release did not write; return all of them."""
    recorded = _recorded(lake)
    missing = _not_recorded(lake, recorded)
    for promotion in missing:
        record(lake, promotion)
    return [*recorded, *missing]


def record(lake: Lake, promotion: Promotion) -> None:
    """Write a row of `promotions`, once."""
    table = pa.Table.from_pylist([asdict(promotion)], schema=lake.schema(columns.PROMOTIONS))
    name = f"{promotion.promoted_at.isoformat()} {promotion.model_id}"
    lake.append(columns.PROMOTIONS, table, transaction=name)


def _recorded(lake: Lake) -> list[Promotion]:
    """Return the rows of the table, oldest first; none where a lake has no such table yet."""
    if not lake.exists(columns.PROMOTIONS):
        return []
    rows = [Promotion(**row) for row in lake.rows(columns.PROMOTIONS).to_pylist()]
    return sorted(rows, key=lambda promotion: promotion.promoted_at)


def _not_recorded(lake: Lake, recorded: list[Promotion]) -> list[Promotion]:
    """Return the changes of champion, oldest first, where the newest row names another one."""
    newest = recorded[-1] if recorded else None
    models = model_rows(lake)
    champion = next((row.model_id for row in models if row.status == "champion"), None)
    if champion == (newest and newest.model_id):
        return []
    for _, _, note in lake.commits(columns.MODELS):
        if promotion := Promotion.from_note(note):
            return [promotion]
    missing: list[Promotion] = []
    for row in reversed(models):
        if row.status != "rejected" and (newest is None or row.trained_at > newest.promoted_at):
            previous = missing[-1].model_id if missing else None
            missing.append(
                Promotion(row.trained_at, "gate", row.model_id, previous, None, row.why, None)
            )
    return missing
