"""Replays: each night knows what was known on its day, and its lists are judged by what came."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from recsys import columns
from recsys.errors import ConfigurationError
from recsys.lake.tables import Lake
from recsys.lists.recommend import recommend
from recsys.replay import nights
from recsys.replay.page import replay_picture, replay_table
from recsys.replay.replay import ReplayRow, days_of, replay
from recsys.replay.variants import Variant
from recsys.settings import Settings
from tests import lakes
from tests.test_cli import recsys

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS, DAYS = 30, 25, 20
NIGHTS = [date(2026, 1, day) for day in (6, 10)]
TINY = {
    "training.width": "16",
    "training.heads": "2",
    "training.blocks": "1",
    "training.epochs": "1",
    "k": "5",
}


def rows() -> list[dict[str, Any]]:
    """Each user takes an item a day; a tenth of it is ingested four days late."""
    random = np.random.default_rng(5)
    drawn = []
    for user in range(USERS):
        for day in range(DAYS):
            timestamp = FIRST + timedelta(days=day, hours=12, minutes=user)
            late = timedelta(days=4) * int(random.random() < 0.1)
            drawn.append(
                {
                    "user_id": user,
                    "item_id": int(ITEMS * random.random() ** 2),
                    "timestamp": timestamp,
                    "ingested_at": timestamp + timedelta(hours=1) + late,
                    "batch_id": "b",
                    "source_row": day,
                }
            )
    return drawn


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("past") / "lake"
    lake = Lake.from_settings(Settings(lake=str(root), memory_limit="1GB", threads=1))
    lake.create(pa.int64(), pa.int64())
    lakes.write(lake, columns.INTERACTIONS, rows())
    return lake


@pytest.fixture
def settings(past: Lake) -> Settings:
    return Settings(lake=past.root, memory_limit="1GB", device="cpu", threads=1)


def read(text: str, settings: Settings, **changes: str) -> Variant:
    return Variant.read(text, settings, {**TINY, **changes}, "policy")


def totals(found: list[ReplayRow]) -> dict[tuple[str, str], ReplayRow]:
    return {(row.setting, row.metric): row for row in found if row.run_date is None}


def hits_of_popularity(as_of_now: bool) -> dict[date, list[float]]:
    """Hit or not of each user who took something new, with popularity's five items, by night."""
    found: dict[date, list[float]] = {}
    for night in NIGHTS:
        end = datetime.combine(night + timedelta(days=1), datetime.min.time(), UTC)
        known = [
            row
            for row in rows()
            if row["timestamp"] < end and (as_of_now or row["ingested_at"] < end)
        ]
        counts = [sum(row["item_id"] == item for row in known) for item in range(ITEMS)]
        ranking = sorted((i for i in range(ITEMS) if counts[i]), key=lambda i: (-counts[i], i))
        for user in {row["user_id"] for row in known}:
            had = {row["item_id"] for row in known if row["user_id"] == user}
            ever = {r["item_id"] for r in rows() if r["user_id"] == user and r["timestamp"] < end}
            took = {
                row["item_id"]
                for row in rows()
                if row["user_id"] == user and end <= row["timestamp"] < end + timedelta(days=7)
            } - ever
            if took:
                listed = [item for item in ranking if item not in had][:5]
                found.setdefault(night, []).append(float(bool(took & set(listed))))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("as_of", ["now", None])
def test_a_night_knows_what_was_known_on_its_day(
    past: Lake, settings: Settings, as_of: Any, tmp_path: Path
) -> None:
    version = past.version(columns.INTERACTIONS)
    variant = read("popular:train=never", settings)
    result = replay(past, [variant], NIGHTS, as_of=as_of, folder=tmp_path)
    right = hits_of_popularity(as_of == "now")
    for row in result.rows:
        if row.metric == "hr@10" and row.run_date:
            expected = right[row.run_date]
            assert (row.users, row.result) == (len(expected), pytest.approx(np.mean(expected)))
            assert row.result == row.popularity, "popularity serves"
    everything = [hit for hits in right.values() for hit in hits]
    assert totals(result.rows)["popular", "hr@10"].result == pytest.approx(np.mean(everything))
    assert past.version(columns.INTERACTIONS) == version
    assert not past.rows(columns.EDITIONS).num_rows, "nothing is served"
    assert not list(tmp_path.iterdir()), "what nights made is removed"
    stored = past.rows(columns.REPLAYS).to_pylist()
    (mine, *_) = [row for row in stored if row["replay_id"] == result.replay_id]
    assert mine["trainings"] == 0


@pytest.mark.slow
def test_settings_train_by_their_policy_and_are_compared_by_user(
    past: Lake, settings: Settings, tmp_path: Path
) -> None:
    variants = [
        read("once:training.policy.max_age=30d,training.policy.new_data_share=99", settings),
        read("always:train=always", settings),
        read("popularity:train=never", settings),
    ]
    found = replay(past, variants, NIGHTS, as_of="now", folder=tmp_path / "work")
    of = totals(found.rows)
    assert [of[v.name, "ndcg@10"].trainings for v in variants] == [1, 2, 0]
    assert {of[v.name, "hr@10"].users for v in variants} == {of["once", "hr@10"].users}
    assert {of[v.name, "hr@10"].popularity for v in variants} == {of["popularity", "hr@10"].result}
    for name in ("always", "popularity"):
        row, first = of[name, "ndcg@10"], of["once", "ndcg@10"]
        assert row.compared_with == "once"
        assert row.result is not None
        assert row.difference == pytest.approx(row.result - (first.result or 0))
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.difference <= row.high
    text, drawing = replay_table(found), replay_picture(found)
    assert text.count("\n| ") == 4
    assert "| always | 2 |" in text
    assert drawing.startswith("<svg xmlns")
    assert drawing.count("<polyline") == 3


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_killed_replay_goes_on_where_it_was(
    past: Lake, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = read("popular:train=never,k=4", settings)
    made: list[date] = []

    def interrupted(limit: int) -> Iterator[None]:
        def work(lake: Lake, *arguments: Any, run_date: date, **more: Any) -> Any:
            if len(made) == limit:
                raise KilledError
            made.append(run_date)
            return recommend(lake, *arguments, run_date=run_date, **more)

        monkeypatch.setattr(nights, "recommend", work)
        yield

    next(interrupted(1))
    with pytest.raises(KilledError):
        replay(past, [variant], NIGHTS, as_of="now", folder=tmp_path)
    next(interrupted(99))
    scratch = next(tmp_path.iterdir())
    editions = Lake(str(scratch), past.storage).rows(columns.EDITIONS)
    assert editions.num_rows == 1
    resumed = replay(past, [variant], NIGHTS, as_of="now", folder=tmp_path, keep=True)
    lake = Lake(str(scratch), past.storage)
    assert lake.rows(columns.EDITIONS).num_rows == 2
    assert set(lake.rows(columns.EDITIONS)["edition"].to_pylist()) == {1}, "none was made again"
    whole = replay(past, [variant], NIGHTS, as_of="now", folder=tmp_path / "whole")
    assert [row.result for row in whole.rows] == [row.result for row in resumed.rows]
    assert whole.replay_id == resumed.replay_id
    with duckdb.connect() as con:
        replays = past.rows(columns.REPLAYS)  # noqa: F841 - DuckDB reads it
        statement = "select count(*) from replays where replay_id = $1"
        counted = con.execute(statement, [whole.replay_id]).fetchall()
    assert counted == [(len(whole.rows),)], "the same replay has its rows once"


def test_what_can_not_be_replayed_is_refused(past: Lake, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="whole days"):
        days_of(settings, NIGHTS[0], NIGHTS[1], timedelta(hours=5))
    with pytest.raises(ConfigurationError, match="does not"):
        days_of(settings, NIGHTS[1], NIGHTS[0], timedelta(days=1))
    with pytest.raises(ConfigurationError, match="one name"):
        replay(past, [read("a", settings), read("a", settings)], NIGHTS)
    for text in ("a:k", ":k=4", "a:train=sometimes", "a:training.no_such_field=1"):
        with pytest.raises(ConfigurationError):
            read(text, settings)
    changed = read("a:k=7,training.width=32,training.policy.max_age=9d", settings).settings
    assert (changed.recommending.k, changed.training.policy.max_age.days) == (7, 9)
    assert changed.training.overrides["width"] == "32"


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_it(
    past: Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--lake", past.root, "replay", "--from", "2026-01-06", "--to", "2026-01-07")
    more = ("--every", "1d", "--policy", "never", "--set", "k=5", "--out", str(tmp_path / "out"))
    code, out, err = recsys(monkeypatch, capsys, *words, *more)
    assert code == 0, err
    assert "| as configured | 0 |" in out
    assert (tmp_path / "out" / "replay.md").read_text() in out
    assert (tmp_path / "out" / "replay.svg").exists()
    runs = past.rows(columns.RUNS).to_pylist()
    assert json.loads(runs[-1]["outcome"])["replay"]["nights"] == 2
