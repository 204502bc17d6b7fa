"""A date means what it says: no list for a day knows what came after it."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from recsys import columns
from recsys.errors import GateError
from recsys.lake.bound import Bound
from recsys.lake.engine import open_duckdb
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.settings import Recommending, Settings
from tests import lakes
from tests.lists.test_recommend import untrained

FIRST = date(2026, 1, 1)
ZONE = "America/New_York"


def some_events(chance: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """(user, item, hour after the start, hours until it is ingested) of up to 12 interactions."""
    lowest, above = (1, 10, 0, 0), (5, 17, 24 * 5 + 1, 49)
    return [
        tuple(row) for row in chance.integers(lowest, above, (chance.integers(1, 13), 4)).tolist()
    ]


def write_events(lake: Lake, events: list[tuple[int, int, int, int]]) -> None:
    lake.create(lakes.id_type(1), lakes.id_type(1))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    lakes.write(
        lake,
        columns.INTERACTIONS,
        [
            {
                "user_id": user,
                "item_id": item,
                "timestamp": start + timedelta(hours=hour),
                "source_row": row,
                "batch_id": "b",
                "ingested_at": start + timedelta(hours=hour + late),
            }
            for row, (user, item, hour, late) in enumerate(events)
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 8, 10, 24, 34, 35])  # all but 0 have a day that knows no row
def test_no_list_for_a_day_holds_what_came_after_it(lake: Lake, seed: int) -> None:
    """Nor a user who came after it; and the rows that were known then make exactly that list."""
    chance = np.random.default_rng(seed)
    events, days = some_events(chance), chance.permutation(7)[: chance.integers(1, 4)]
    ours = Settings(lake=lake.root, timezone=ZONE, device="cpu", threads=1)
    write_events(lake, events)
    for day in (FIRST + timedelta(days=number) for number in days.tolist()):
        end = (ours.end_of(day) - datetime(2026, 1, 1, tzinfo=UTC)) / timedelta(hours=1)
        known = [event for event in events if event[2] < end and event[2] + event[3] < end]
        if not known:
            with pytest.raises(GateError, match="ingested before"):
                recommend(lake, ours, run_date=day, run_id="r")
            continue
        result = recommend(lake, ours, Recommending(k=9), run_date=day, run_id="r")
        with open_duckdb(ours) as con:
            lake.view(con, columns.RECOMMENDATIONS)
            rows = con.execute(
                "select user_id, item_id, score from recommendations where run_date = ?", [day]
            ).fetchall()
        users, items = ({event[place] for event in known} for place in (0, 1))
        assert {(user, item) for user, item, _ in rows} == {
            (user, item)
            for user in users
            for item in items
            if not any(event[:2] == (user, item) for event in known)
        }
        assert result.users + result.without_list == len(users)
        for _, item, score in rows:  # popularity counts what was known alone
            share = sum(event[1] == item for event in known) / len(known)
            assert math.exp(score) == pytest.approx(share)


def test_a_day_ends_in_the_settings_zone_and_late_data_is_not_known(lake: Lake) -> None:
    ours = Settings(lake=lake.root, timezone=ZONE)
    ends = datetime(2026, 1, 2, 5, tzinfo=UTC)
    assert Bound.of(ours, FIRST) == Bound(ends, ends)
    assert Bound.of(ours, FIRST, "now") == Bound(ends)
    assert Bound.of(ours, FIRST, datetime(2026, 1, 3)) == Bound(
        ends, datetime(2026, 1, 3, 5, tzinfo=UTC)
    )
    assert Bound.of(ours, FIRST, now=ends - timedelta(hours=1)) == Bound(ends), "not over yet"
    today = ours.run_date()
    assert Bound.of(ours, today).as_of is None


@pytest.mark.slow
def test_the_cache_serves_a_night_that_knows_everything(
    lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("recsys.lake.history_cache.pack", refuse)
    lakes.fill(lake, {1: [10, 11], 2: [11]})
    recommend(lake, settings, run_date=FIRST, run_id="r")
    assert Path(lake.uri("packed")).exists()
    lakes.fill(lake, {3: [10]}, batch_id="later", day=1)
    recommend(lake, settings, run_date=FIRST + timedelta(days=1), run_id="r")
    with pytest.raises(ZeroDivisionError):
        recommend(lake, settings, run_date=FIRST, run_id="r", replace_why="to see it packed")


def test_rows_whose_ingestion_is_not_known_count(lake: Lake, settings: Settings) -> None:
    lake.create(lakes.id_type(1), lakes.id_type(1))
    rows = [
        {"user_id": user, "item_id": 10 + user, "timestamp": lakes.START, "ingested_at": ingested}
        for user, ingested in ((1, None), (2, lakes.START), (3, lakes.START + timedelta(days=9)))
    ]
    lakes.write(lake, columns.INTERACTIONS, rows)
    assert recommend(lake, settings, run_date=FIRST, run_id="r").users == 2


@pytest.mark.slow
def test_lists_of_a_day_come_from_the_champion_of_that_day(lake: Lake, settings: Settings) -> None:
    """The champion of today was promoted long after; --as-of now lets it make the lists."""
    lakes.fill(lake, {user: [10 + user, 11 + user] for user in range(6)})
    untrained(lake, list(range(10, 17)))
    assert recommend(lake, settings, run_date=FIRST, run_id="r").model_id is None
    bound = Bound.of(settings, FIRST, "now")
    later = recommend(
        lake, settings, run_date=FIRST, run_id="r", bound=bound, replace_why="today's model"
    )
    assert later.model_id == "m-test"
