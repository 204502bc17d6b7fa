"""What was served stands: editions, their commit point, and the way back from one to another."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from recsys import columns
from recsys.catalog.publish import publish_catalog
from recsys.catalog.query import query_catalog
from recsys.errors import ConfigurationError, MissingError
from recsys.lake.bound import Bound
from recsys.lake.tables import Lake
from recsys.lists.editions import EditionRow, all_editions, editions_of
from recsys.lists.recommend import RecommendResult, recommend
from recsys.lists.rollback import RollbackResult, roll_back
from recsys.settings import Recommending, Settings
from tests import lakes

YESTERDAY, DAY = date(2026, 1, 1), date(2026, 1, 2)


def night(lake: Lake, settings: Settings, day: date = DAY, **given: Any) -> RecommendResult:
    k = Recommending(k=given.pop("k", 1))
    bound = Bound.of(settings, day, "now")
    return recommend(lake, settings, k, run_date=day, run_id="run", bound=bound, **given)


def back(
    lake: Lake, day: date = DAY, to: int | None = None, run_id: str | None = None
) -> RollbackResult:
    run_id = run_id or str(uuid4())
    return roll_back(lake, day, to=to, why="wrong items", who="ada@desk", run_id=run_id)


def shown(lake: Lake, view: str = "recommendations") -> list[tuple[Any, ...]]:
    """(day, edition, rows) in a view of the catalog."""
    publish_catalog(lake)
    rows = query_catalog(
        lake,
        "select day(run_date)::int as day, edition, count(*) as rows "
        f"from {view} group by all order by all",
    )
    return [tuple(row.values()) for row in rows.to_pylist()]


def statuses(lake: Lake, day: date = DAY) -> dict[int, str]:
    return {row.edition: row.status for row in editions_of(lake, day)}


@pytest.fixture
def two_days(lake: Lake, settings: Settings) -> Lake:
    """Three users with a list of one item on each of two days."""
    lakes.fill(lake, {1: [10, 11], 2: [11, 12], 3: [12, 13]})
    for day in (YESTERDAY, DAY):
        night(lake, settings, day)
    return lake


def test_a_second_edition_is_shown_and_the_first_stays_readable(
    two_days: Lake, settings: Settings
) -> None:
    assert shown(two_days) == [(1, 1, 3), (2, 1, 3)]
    assert night(two_days, settings, k=2).status == "stands"
    assert shown(two_days) == [(1, 1, 3), (2, 1, 3)]
    result = night(two_days, settings, k=2, replace_why="longer lists")
    assert (result.status, result.edition, result.rows) == ("published", 2, 6)
    assert shown(two_days) == [(1, 1, 3), (2, 2, 6)]
    assert shown(two_days, "latest_recommendations") == [(2, 2, 6)]
    assert shown(two_days, "recommendation_editions") == [(1, 1, 3), (2, 1, 3), (2, 2, 6)]
    first, second = editions_of(two_days, DAY)
    assert (first.status, second.status, second.why) == ("superseded", "current", "longer lists")


@pytest.mark.slow
def test_a_reason_is_asked_for(two_days: Lake, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="say why"):
        night(two_days, settings, replace_why=" ")
    with pytest.raises(ConfigurationError, match="say why"):
        roll_back(two_days, DAY, why="", who="ada", run_id="r")


@pytest.mark.slow
def test_rows_of_a_killed_run_are_not_shown_and_the_next_run_repairs_them(
    two_days: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after the rows of the second edition, before the row that makes them count."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.lists.publishing.write_editions", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            night(two_days, settings, k=2, replace_why="longer lists")
    assert shown(two_days) == [(1, 1, 3), (2, 1, 3)]
    assert shown(two_days, "latest_recommendations") == [(2, 1, 3)]
    assert shown(two_days, "recommendation_editions") == [(1, 1, 3), (2, 1, 3)]
    monkeypatch.undo()
    assert night(two_days, settings, k=2, replace_why="longer lists").edition == 2
    assert shown(two_days) == [(1, 1, 3), (2, 2, 6)]
    assert len(two_days.rows(columns.RECOMMENDATIONS)) == 3 + 3 + 6, "nothing is doubled"


@pytest.mark.slow
def test_lists_roll_back_to_the_edition_before_and_forward_again(
    two_days: Lake, settings: Settings
) -> None:
    night(two_days, settings, k=2, replace_why="longer lists")
    result = back(two_days)
    assert (result.previous_edition, result.edition) == (2, 1)
    assert statuses(two_days) == {1: "current", 2: "withdrawn"}
    assert shown(two_days) == [(1, 1, 3), (2, 1, 3)]
    rolled = editions_of(two_days, DAY)[1]
    assert (rolled.why, rolled.who) == ("wrong items", "ada@desk")
    assert back(two_days, to=2).edition == 2
    assert statuses(two_days) == {1: "withdrawn", 2: "current"}
    assert shown(two_days, "latest_recommendations") == [(2, 2, 6)]
    before = two_days.version(columns.EDITIONS)
    assert back(two_days, to=2).edition == 2
    assert two_days.version(columns.EDITIONS) == before, "it is current already"


@pytest.mark.slow
def test_a_run_that_is_tried_again_rolls_back_once(two_days: Lake, settings: Settings) -> None:
    """Killed behind its commit, it would else take back one edition more with each attempt."""
    night(two_days, settings, k=2, replace_why="longer lists")
    first, again = (back(two_days, run_id="r-1") for _ in range(2))
    assert statuses(two_days) == {1: "current", 2: "withdrawn"}
    assert again == first
    assert str(again) == "edition 1 of 2026-01-02 is current"
    assert back(two_days, run_id="r-2").edition is None
    assert back(two_days, run_id="r-2").previous_edition == 1
    assert statuses(two_days) == {1: "withdrawn", 2: "withdrawn"}


@pytest.mark.slow
def test_the_only_edition_is_withdrawn_and_comes_back(two_days: Lake, settings: Settings) -> None:
    assert back(two_days).edition is None
    assert shown(two_days) == [(1, 1, 3)]
    assert shown(two_days, "latest_recommendations") == [(1, 1, 3)]
    again = night(two_days, settings)
    assert again.status == "stands", "a night does not undo what a person decided"
    assert again.why
    assert "was withdrawn by ada@desk (wrong items)" in again.why
    with pytest.raises(ConfigurationError, match="no edition of 2026-01-02 is current"):
        back(two_days)
    assert back(two_days, to=1).edition == 1
    assert shown(two_days, "latest_recommendations") == [(2, 1, 3)]


@pytest.mark.slow
def test_an_edition_that_is_not_there_is_not_served(two_days: Lake, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="has no edition 7; its editions: 1"):
        back(two_days, to=7)
    night(two_days, settings, k=2, replace_why="longer lists")
    two_days.delete(columns.RECOMMENDATIONS, "run_date = '2026-01-02' and edition = 1")
    with pytest.raises(MissingError, match="edition 1 of 2026-01-02 can't be served"):
        back(two_days)
    assert statuses(two_days) == {1: "superseded", 2: "current"}


@pytest.mark.slow
def test_a_night_that_serves_nobody_hides_the_lists_of_the_day_before(
    lake: Lake, settings: Settings
) -> None:
    lakes.fill(lake, {1: [10], 2: [11]})
    night(lake, settings, YESTERDAY)
    assert shown(lake, "latest_recommendations") == [(1, 1, 2)]
    lakes.fill(lake, {1: [11], 2: [10]}, batch_id="rest")
    result = night(lake, settings)
    assert (result.rows, result.users, result.without_list) == (0, 0, 2)
    assert shown(lake, "latest_recommendations") == []
    assert shown(lake) == [(1, 1, 2)]
    assert [row.rows for row in all_editions(lake)] == [2, 0]
    assert night(lake, settings).status == "unchanged"


@pytest.mark.slow
def test_a_run_date_has_one_current_edition_whatever_happens(
    two_days: Lake, settings: Settings
) -> None:
    for number in range(2, 5):
        night(two_days, settings, k=number, replace_why="again")
        current = [row for row in editions_of(two_days, DAY) if row.status == "current"]
        assert [row.edition for row in current] == [number]
    back(two_days, to=1)
    names = [row for row in all_editions(two_days) if row.status == "current"]
    assert [EditionRow.name.fget(row) for row in names] == [  # type: ignore[attr-defined]
        "edition 1 of 2026-01-01",
        "edition 1 of 2026-01-02",
    ]
