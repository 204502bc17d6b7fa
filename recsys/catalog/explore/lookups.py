"""What the pages show of a user, an item, a search and two nights, read by a few statements."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.catalog.report.figures import SAMPLE_SEED
from recsys.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from recsys.catalog.explore.newest import Catalog, Row

HISTORY = 25
"""Interactions on a page."""
FOUND = 20
"""Users, and items, that a search shows."""
NEIGHBOURS = 15
TAKERS = 2_000
"""Users of an item, the newest, whose other items are its neighbours."""
OWN_ITEMS = 500
"""Items of a user, the newest, that others may share."""
_LONGEST = 10_000  # ranks of a list: what `recommending.k` allows
_ITEM_NIGHTS = 7
_SAMPLE = 8
_MOST = 12


@dataclass(frozen=True)
class Entry:
    """A place of a list, and how it differs from the list beside it.

    Attributes:
        row: of sql/report/lists.sql.
        is_taken: whether the user took the item after the list was made.
        is_other: whether the list beside it lacks the item; False where there is none.
        moved: places that the item is higher than in the list beside it; 0 where it is not there.
    """

    row: Row
    is_taken: bool
    is_other: bool = False
    moved: int = 0


@dataclass(frozen=True)
class List:
    """A user's list of a night; without entries where there is none.

    Attributes:
        night: of sql/explore/nights.sql.
        entries: best first.
    """

    night: Row
    entries: list[Entry]

    @property
    def confidence(self) -> float | None:
        """How likely the user's next item is in it."""
        return self.entries[0].row["confidence"] if self.entries else None

    @property
    def model_id(self) -> str | None:
        """Who made it, where it is not the night's champion: a model of an experiment."""
        made_by = self.entries[0].row["model_id"] if self.entries else None
        return made_by if made_by != self.night["model_id"] else None


@dataclass(frozen=True)
class UserFigures:
    """What the lake knows of a user.

    Attributes:
        user_id: the id.
        history: a page of it, of sql/explore/history.sql.
        interactions: how many the user has in all.
        page: which page of the history, from 1.
        lists: of the night that is asked for, and of the one beside it.
        erased_at: when the user was erased; None where the id was not.
    """

    user_id: int | str
    history: list[Row]
    interactions: int
    page: int
    lists: list[List]
    erased_at: Any = None

    @property
    def is_known(self) -> bool:
        """Whether anything of the user is in the lake."""
        return bool(self.interactions) or any(each.entries for each in self.lists)

    @property
    def pages(self) -> int:
        """How many pages the history has."""
        return -(-self.interactions // HISTORY)


def read_nights(catalog: Catalog) -> list[Row]:
    """Return the nights whose lists can be shown, the newest first."""
    return catalog.all("nights")


def find_night(nights: Sequence[Row], text: str | None) -> Row | None:
    """Return the night of a day; None where nobody asked for one.

    Raises:
        MissingError: no lists of that day are in the lake.
    """
    if not text:
        return None
    for night in nights:
        if night["run_date"].isoformat() == text:
            return night
    raise MissingError(f"there are no lists for {text!r} in the lake")


def read_user(
    catalog: Catalog, user_id: int | str, night: Row | None, against: Row | None, page: int
) -> UserFigures:
    """Read a user's history, and the lists of one night or two."""
    since = night["data_until"] if night else None
    shown = {"user_id": user_id, "since": since, "count": HISTORY}
    history = catalog.all("history", **shown, skipped=HISTORY * (page - 1))
    if not history and page > 1:
        return read_user(catalog, user_id, night, against, 1)
    known: Row = history[0] if history else {"interactions": 0, "items_since": []}
    nights = [each for each in (night, against) if each]
    rows = [_list_of(catalog, user_id, each) for each in nights]
    lists = [
        List(each, _entries(rows[nth], rows[1 - nth] if len(rows) > 1 else None, known))
        for nth, each in enumerate(nights)
    ]
    erasure = None
    if not history:
        erasure = catalog.one("erasure", user_id=str(user_id))
    return UserFigures(
        user_id,
        history,
        known["interactions"],
        page,
        lists,
        erasure["erased_at"] if erasure else None,
    )


def _list_of(catalog: Catalog, user_id: int | str, night: Row) -> list[Row]:
    named = {"users": [user_id], "run_date": night["run_date"], "longest": _LONGEST}
    return catalog.all("report/lists", **named)


def _entries(rows: list[Row], beside: list[Row] | None, known: Row) -> list[Entry]:
    taken = set(known["items_since"])
    ranks = {row["item_id"]: row["rank"] for row in beside or ()}
    return [
        Entry(
            row,
            row["item_id"] in taken,
            is_other=bool(beside) and row["item_id"] not in ranks,
            moved=ranks.get(row["item_id"], row["rank"]) - row["rank"],
        )
        for row in rows
    ]


def read_user_neighbours(catalog: Catalog, user_id: int | str) -> list[Row]:
    """Return the users who took the most similar items, the most similar first."""
    return catalog.all("users_alike", user_id=user_id, items=OWN_ITEMS, count=NEIGHBOURS)


def read_item(catalog: Catalog, item_id: int | str, nights: Sequence[Row]) -> dict[str, Any]:
    """Read what an item is, how often it is taken, and in which lists it is; by name."""
    described = catalog.one("item", item_id=item_id)
    use = catalog.one("item_use", item_id=item_id, count=_MOST)
    newest = [night["run_date"] for night in nights[:_ITEM_NIGHTS]]
    listed = catalog.all("item_nights", item_id=item_id, nights=newest) if newest else []
    extra = json.loads(described["extra"] or "{}") if described else {}
    return {
        "described": described,
        "use": use,
        "listed": listed,
        "more": {name: value for name, value in extra.items() if name != "image"},
        "is_known": described is not None
        or bool(use and use["interactions"])
        or any(night["lists"] for night in listed),
    }


def read_listed_to(catalog: Catalog, item_id: int | str, night: Row | None) -> list[Row]:
    """Return the users whose list of a night has an item in the highest places."""
    if night is None:
        return []
    named = {"item_id": item_id, "count": _MOST, "run_date": night["run_date"]}
    return catalog.all("item_listed_to", **named)


def read_item_neighbours(catalog: Catalog, item_id: int | str, night: Row | None) -> dict[str, Any]:
    """Read the items that are taken, and listed, together with one; by name."""
    named = {"item_id": item_id, "count": NEIGHBOURS}
    return {
        "taken_with": catalog.all("items_taken_with", **named, takers=TAKERS),
        "listed_with": catalog.all("items_listed_with", **named, run_date=night["run_date"])
        if night
        else [],
    }


def read_search(catalog: Catalog, text: str) -> dict[str, list[Row]]:
    """Return the users and the items that a text may mean, one more of each than is shown."""
    named = {"text": text, "count": FOUND + 1}
    return {
        "users": catalog.all("search_users", **named),
        "items": catalog.all("search_items", **named),
    }


def read_start(catalog: Catalog, night: Row | None) -> dict[str, list[Row]]:
    """Return a few users and items to begin with."""
    if night is None:
        return {"users": [], "items": []}
    day: date = night["run_date"]
    named = {"run_date": day, "count": _SAMPLE}
    return {
        "users": catalog.all("report/users", **named, seed=str(SAMPLE_SEED)),
        "items": catalog.all("top_items", **named),
    }


def read_changes(catalog: Catalog, before: Row, after: Row) -> dict[str, Any]:
    """Return how the lists of two nights differ; by name."""
    named = {"before": before["run_date"], "after": after["run_date"], "count": _MOST}
    return {
        "changes": catalog.one("night_changes", **named),
        "items": catalog.all("night_items", **named),
    }
