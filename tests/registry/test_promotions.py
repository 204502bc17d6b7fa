"""Which model served when; promotion and rollback; what a kill between two tables leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from recsys.errors import ConfigurationError, MissingError
from recsys.histories import ItemIds
from recsys.lake.tables import Lake
from recsys.model.recommender import Recommender
from recsys.registry import promote as promoting
from recsys.registry.models import UnusableModelError, find_champion, model_rows, save_model
from recsys.registry.promote import promote, register_model, rollback
from recsys.registry.promotions import champion_at, promotions
from tests import lakes, worlds


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """A lake with the files of three models, and no row of them yet."""
    lakes.fill(lake, {1: [7]})
    for model_id in ("m-a", "m-b", "m-c"):
        model = Recommender(worlds.small("best").model, 1)
        save_model(lake, model_id, model, ItemIds(pa.array([7])), {}, f"# {model_id}")
    return lake


def register(lake: Lake, *model_ids: str, **changes: Any) -> None:
    """Let the gate make each model the champion, one after the other."""
    for model_id in model_ids:
        champion = find_champion(lake)
        row = lakes.model_row(model_id, trained_at=datetime.now(UTC), **changes)
        register_model(lake, row, champion.model_id if champion else None, run_id=f"run {model_id}")


def champion(lake: Lake) -> str | None:
    row = find_champion(lake)
    return row.model_id if row else None


def test_the_gate_records_each_change_and_nothing_else(shop: Lake) -> None:
    register(shop, "m-a")
    register(shop, "m-c", status="rejected")
    register(shop, "m-b", why="validation NDCG@10 0.0621")
    first, second = promotions(shop)
    assert (first.action, first.model_id, first.previous_model_id) == ("gate", "m-a", None)
    assert (second.action, second.model_id, second.previous_model_id) == ("gate", "m-b", "m-a")
    assert (second.why, second.run_id) == ("validation NDCG@10 0.0621", "run m-b")
    assert second.who
    assert "@" in second.who
    version = shop.version("promotions")
    register(shop, "m-b")  # its files were lost and made again
    assert shop.version("promotions") == version
    assert champion(shop) == "m-b"


@pytest.mark.slow
def test_a_person_promotes_and_rolls_back_as_far_as_there_were_champions(shop: Lake) -> None:
    register(shop, "m-a", "m-b")
    register(shop, "m-c", status="rejected", why="is below the champion")
    done = promote(shop, "m-c", why="a campaign", run_id="1")
    assert (done.status, done.model_id, done.previous_model_id) == ("changed", "m-c", "m-b")
    rows = {row.model_id: row for row in model_rows(shop)}
    assert {name: row.status for name, row in rows.items()} == {
        "m-a": "retired",
        "m-b": "retired",
        "m-c": "champion",
    }
    assert rows["m-c"].why == "is below the champion; promoted: a campaign"
    assert rollback(shop, why="it sold less", run_id="2").model_id == "m-b"
    assert rollback(shop, why="this one too", run_id="3").model_id == "m-a"
    assert promote(shop, "m-c", why="it was the weather", run_id="4").model_id == "m-c"
    assert rollback(shop, why="no", run_id="5").model_id == "m-a"
    assert [row.action for row in promotions(shop)] == [
        *("gate", "gate", "promote", "rollback", "rollback", "promote", "rollback")
    ]
    last = rollback(shop, why="all of them", run_id="6")
    assert (last.model_id, champion(shop)) == (None, None)
    with pytest.raises(ConfigurationError, match="no model serves"):
        rollback(shop, why="once more", run_id="7")
    assert promote(shop, "m-a", why="undo", run_id="8").previous_model_id is None
    assert champion(shop) == "m-a"


@pytest.mark.slow
def test_what_changes_nothing_or_makes_no_sense_writes_nothing(shop: Lake) -> None:
    register(shop, "m-a", "m-b")
    shop.upsert(
        "models",
        pa.Table.from_pylist([vars(lakes.model_row("m-lost", "rejected"))]).cast(
            shop.schema("models")
        ),
        on="model_id",
    )
    versions = shop.version("models"), shop.version("promotions")
    assert promote(shop, "m-b", why="it serves", run_id="1").status == "unchanged"
    for model_id, why, problem in (
        ("m-x", "why", r"no model 'm-x'.*recsys models"),
        ("m-a", "  ", "say why"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            promote(shop, model_id, why=why, run_id="1")
    with pytest.raises(UnusableModelError, match="m-lost: the model has no file"):
        promote(shop, "m-lost", why="why", run_id="1")
    assert (shop.version("models"), shop.version("promotions")) == versions


@pytest.mark.slow
def test_a_rollback_that_is_tried_again_goes_back_once(
    shop: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its row of `promotions`, and so tried again by Prefect under the same id."""
    register(shop, "m-a", "m-b", "m-c")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promoting, "record", die)
    with pytest.raises(KeyboardInterrupt):
        rollback(shop, why="bad", run_id="1")
    monkeypatch.undo()
    assert champion(shop) == "m-b"
    assert shop.open("promotions").to_pyarrow_table().num_rows == 3
    again = rollback(shop, why="bad", run_id="1")
    assert (again.model_id, again.previous_model_id, champion(shop)) == ("m-b", "m-c", "m-b")
    assert shop.open("promotions").to_pyarrow_table().num_rows == 4


@pytest.mark.slow
def test_a_promotion_that_is_tried_again_is_written_down(
    shop: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(shop, "m-a", "m-b")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promoting, "record", die)
    with pytest.raises(KeyboardInterrupt):
        promote(shop, "m-a", why="better", run_id="1")
    monkeypatch.undo()
    assert shop.open("promotions").to_pyarrow_table().num_rows == 2
    again = promote(shop, "m-a", why="better", run_id="1")
    assert (again.status, again.model_id, again.previous_model_id) == ("changed", "m-a", "m-b")
    assert shop.open("promotions").to_pyarrow_table().num_rows == 3
    assert promote(shop, "m-a", why="better", run_id="2").status == "unchanged"
    assert shop.open("promotions").to_pyarrow_table().num_rows == 3


@pytest.mark.slow
@pytest.mark.parametrize("first", [(), ("m-a",)])
def test_a_kill_between_the_two_tables_leaves_nothing_to_be_guessed(
    shop: Lake, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...]
) -> None:
    register(shop, *first)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promoting, "record", die)
    with pytest.raises(KeyboardInterrupt):
        register(shop, "m-b", why="better")
    monkeypatch.undo()
    register(shop, "m-x", status="rejected")  # later commits of `models` do not hide it
    assert champion(shop) == "m-b"
    assert shop.open("promotions").to_pyarrow_table().num_rows == len(first)
    seen = promotions(shop)
    assert [row.model_id for row in seen] == [*first, "m-b"]
    assert (seen[-1].why, seen[-1].run_id) == ("better", "run m-b")
    register(shop, "m-c")
    assert promotions(shop)[:-1] == seen
    assert shop.open("promotions").to_pyarrow_table().num_rows == len(first) + 2


def test_a_kill_before_the_first_commit_changes_nothing(
    shop: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(shop, "m-a")
    before = promotions(shop), model_rows(shop)

    def die(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lake, "upsert", die)
    with pytest.raises(KeyboardInterrupt):
        register(shop, "m-b")
    assert (promotions(shop), model_rows(shop)) == before


@pytest.mark.slow
def test_the_champion_of_a_time_is_the_one_that_served_then(shop: Lake) -> None:
    register(shop, "m-a", "m-b")
    promote(shop, "m-a", why="why", run_id="1")
    rollback(shop, why="why", run_id="2")
    times = [row.promoted_at for row in promotions(shop)]
    tick = timedelta(microseconds=1)
    assert champion_at(shop, times[0] - tick) is None
    for time, model_id in zip(times, ("m-a", "m-b", "m-a", "m-b"), strict=True):
        row = champion_at(shop, time)
        assert row
        assert row.model_id == model_id
    row = champion_at(shop, datetime.now(UTC) + timedelta(hours=5))
    assert row == find_champion(shop)
    shop.delete("models", "model_id = 'm-a'")
    with pytest.raises(MissingError, match=r"m-a served at .* no row of it"):
        champion_at(shop, times[0])


@pytest.mark.slow
def test_champions_of_an_earlier_release_count_from_when_they_were_trained(shop: Lake) -> None:
    """That release wrote no promotions; a lake that was not migrated lacks the table."""
    days = [lakes.START + timedelta(days=day) for day in range(3)]
    rows = [
        lakes.model_row("m-a", "retired", trained_at=days[0]),
        lakes.model_row("m-x", "rejected", trained_at=days[1]),
        lakes.model_row("m-b", "champion", trained_at=days[2]),
    ]
    lakes.write(shop, "models", [vars(row) for row in rows])

    def served(time: datetime) -> str | None:
        row = champion_at(shop, time)
        return row.model_id if row else None

    half = timedelta(hours=12)
    expected = [None, "m-a", "m-a", "m-b"]
    assert [served(lakes.START + half + timedelta(days=day)) for day in range(-1, 3)] == expected
    assert rollback(shop, why="worse", run_id="1").model_id == "m-a"
    assert [served(lakes.START + half + timedelta(days=day)) for day in range(-1, 3)] == expected
    assert [row.model_id for row in promotions(shop)] == ["m-a", "m-b", "m-a"]
    assert replace(promotions(shop)[-1], why="worse").previous_model_id == "m-b"


@pytest.mark.slow
def test_changes_keep_their_order_when_the_clock_goes_back(shop: Lake) -> None:
    register(shop, "m-a")
    later = datetime.now(UTC) + timedelta(hours=2)
    row = lakes.model_row("m-b", trained_at=later)
    register_model(shop, row, "m-a", run_id="1", at=later)
    register(shop, "m-c", status="rejected")
    promote(shop, "m-c", why="a campaign", run_id="2")
    assert rollback(shop, why="it sold less", run_id="3").model_id == "m-b"
    history = promotions(shop)
    assert [row.model_id for row in history] == ["m-a", "m-b", "m-c", "m-b"]
    times = [row.promoted_at for row in history]
    assert times == sorted(set(times))
    assert champion(shop) == "m-b"
