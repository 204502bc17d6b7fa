"""What the commit of a night's lists says about them: their inputs and their counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recsys import columns

if TYPE_CHECKING:
    from datetime import date

    from recsys.lake.tables import Lake
    from recsys.settings import Recommending

_NOTE = "recommend"
# Operations of Delta.
_CHANGE_NO_ROW = {"OPTIMIZE", "VACUUM START", "VACUUM END", "ADD COLUMN", "SET TBLPROPERTIES"}


@dataclass(frozen=True)
class ListInputs:
    """All that decides the lists of a run_date: the same inputs make the same lists.

    Attributes:
        run_date: the partition of `recommendations`.
        model_id: the champion; None where popularity serves everyone.
        interactions_version: version of `interactions`.
        items_version: version of `items`.
        recommending: the settings; the size of a block changes no list.
    """

    run_date: date
    model_id: str | None
    interactions_version: int
    items_version: int
    recommending: Recommending

    def as_json(self) -> dict[str, Any]:
        """Return what a commit's note holds."""
        return {
            "run_date": self.run_date.isoformat(),
            "model_id": self.model_id,
            "interactions_version": self.interactions_version,
            "items_version": self.items_version,
            **self.recommending.model_dump(exclude={"block"}),
        }


@dataclass(frozen=True)
class ListCounts:
    """How many lists there are.

    Attributes:
        users: users served.
        rows: rows, one per item of a list.
        popular_users: users whose whole list comes from popularity.
    """

    users: int
    rows: int
    popular_users: int


def commit_note(inputs: ListInputs, counts: ListCounts) -> dict[str, Any]:
    """Return the note of the commit that publishes lists."""
    return {_NOTE: {"inputs": inputs.as_json(), "counts": asdict(counts)}}


def published_counts(lake: Lake, inputs: ListInputs) -> ListCounts | None:
    """Return the counts of the lists that stand for a run_date, where these inputs made them.

    None where other inputs did, or where somebody else has changed `recommendations` since: the
    lists may not be those that were published.

    Raises:
        LakeError: `recommendations` can't be read.
    """
    expected = inputs.as_json()
    if expected["run_date"] not in lake.partitions(columns.RECOMMENDATIONS, "run_date"):
        return None  # without a walk through the commits of all other days
    for _, operation, note in lake.commits(columns.RECOMMENDATIONS):
        published = note.get(_NOTE)
        if published is None and operation not in _CHANGE_NO_ROW:
            return None
        if published and published["inputs"]["run_date"] == expected["run_date"]:
            same = published["inputs"] == expected
            return ListCounts(**published["counts"]) if same else None
    return None
