"""Days without lists get them in order; days with lists are left alone."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from typer.testing import CliRunner

from recsys.cli.common import app
from recsys.errors import ConfigurationError
from recsys.lake.tables import Lake
from recsys.lists.backfill import plan_backfill
from recsys.lists.editions import all_editions
from recsys.lists.recommend import recommend
from recsys.lists.rollback import roll_back
from recsys.settings import Settings
from tests import lakes

FIRST = date(2026, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.fixture
def shop(lake: Lake, settings: Settings) -> Lake:
    """A new user on each of five days. The third has lists, those of the fourth are withdrawn."""
    for number in range(5):
        lakes.fill(lake, {number: [10, 20 + number]}, batch_id=f"b{number}", day=number)
    for number in (2, 3):
        recommend(lake, settings, run_date=day(number), run_id="r")
    roll_back(lake, day(3), why="a test", who="ada", run_id="r-0")
    return lake


@pytest.mark.slow
def test_a_backfill_makes_what_is_missing_in_order(
    shop: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_LAKE", shop.root)
    span = ["backfill", "--from", "2026-01-01", "--to", "2026-01-05"]
    plan = plan_backfill(shop, settings, day(0), day(4))
    assert [planned.standing is None for planned in plan] == [True, True, False, False, True]
    before = shop.version("editions")
    done = CliRunner().invoke(app, [*span, "--dry-run"], catch_exceptions=False)
    assert done.output.splitlines()[1:4] == [
        "2026-01-02: to be made, from what happened before 2026-01-03 00:00 UTC, "
        "ingested before 2026-01-03 00:00 UTC",
        "2026-01-03: stands (edition 1, current)",
        "2026-01-04: stands (edition 1, withdrawn)",
    ]
    assert shop.version("editions") == before, "a dry run changes nothing"
    CliRunner().invoke(app, span, catch_exceptions=False)
    made = [(row.run_date, row.edition, row.users, row.without_list) for row in all_editions(shop)]
    # On the first day there is one user, who has had everything.
    assert made == [
        (day(0), 1, 0, 1),
        (day(1), 1, 2, 0),
        (day(2), 1, 3, 0),
        (day(3), 1, 4, 0),
        (day(4), 1, 5, 0),
    ]
    times = [row.published_at for row in all_editions(shop) if row.run_date in (day(0), day(4))]
    assert times == sorted(times, key=str)
    assert shop.rows("runs", ["flow", "status"]).to_pylist() == [
        {"flow": "backfill", "status": "completed"}
    ]
    before = shop.version("editions")
    CliRunner().invoke(app, span, catch_exceptions=False)
    assert shop.version("editions") == before, "a second one finds all of them"


@pytest.mark.slow
def test_a_span_must_be_one(shop: Lake, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="2026-01-03 to 2026-01-02 does not"):
        plan_backfill(shop, settings, day(2), day(1))
    with pytest.raises(ConfigurationError, match="lies in the future"):
        plan_backfill(shop, settings, day(2), date(2999, 1, 1))


@pytest.mark.slow
def test_the_command_rolls_lists_back_and_shows_editions(
    shop: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_LAKE", shop.root)
    words = ["lists", "rollback", "--run-date", "2026-01-03", "--why", "sold out"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "edition 1 of 2026-01-03 is withdrawn" in done.output
    done = CliRunner().invoke(app, ["lists", "show", "-f", "csv"], catch_exceptions=False)
    assert "2026-01-03,1,withdrawn,3,0," in done.output
    assert "sold out" in done.output
    done = CliRunner().invoke(app, [*words, "--to", "1"], catch_exceptions=False)
    assert "edition 1 of 2026-01-03 is current" in done.output
