"""kill -9 at any moment of a night loses nothing and publishes nothing half."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pytest

from tests.flows import nights
from tests.sampling import sample

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

MOMENTS = 10


DAYS = ("2026-01-02", "2026-01-03")


class World(NamedTuple):
    source: Path
    before: Path | None  # the lake before the night
    after: Path  # the lake after it
    contents: dict[str, list[tuple[Any, ...]]]  # of the lake after it
    files: tuple[int, int]  # in the lake before and after
    day: str
    api: str


def files(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


def watch(night: BaseProcess, lake: Path, until: int | None = None) -> None:
    """Ask the catalog again and again; kill the night when the lake has ``until`` files."""
    asked, answered = 0.0, 0
    while night.is_alive():
        count = files(lake)
        if until is not None and count >= until:
            night.kill()
            night.join()
        elif count != answered and time.monotonic() - asked > 0.1:  # no file, no other answer
            assert_complete(lake / "catalog.duckdb")
            asked, answered = time.monotonic(), count
        time.sleep(0.002)
    assert_complete(lake / "catalog.duckdb")


def assert_complete(catalog: Path) -> None:
    """The newest lists are one whole run: every user, every rank, one date, one run."""
    if not catalog.exists():
        return
    with duckdb.connect(str(catalog), read_only=True) as con:
        (found,) = con.execute(
            "select count(*), count(distinct user_id), count(distinct run_id), "
            "count(distinct run_date), count(distinct interactions_version), max(rank) "
            "from latest_recommendations"
        ).fetchall()
        stored = con.execute("select count(*) from recommendations").fetchall()[0][0]
    assert found == (nights.USERS * nights.K, nights.USERS, 1, 1, 1, nights.K)
    assert stored % (nights.USERS * nights.K) == 0


def undisturbed(source: Path, before: Path | None, lake: Path, day: str, api: str) -> World:
    """Run a night to its end on a copy of ``before``, watched, and keep how it ends."""
    first = files(before) if before else 0
    if before:
        shutil.copytree(before, lake)
    env = nights.environment(source, lake, api)
    night = nights.start_night(env, day)
    watch(night, lake)
    assert night.exitcode == 0, nights.said(env).read_text()
    return World(source, before, lake, nights.contents(lake), (first, files(lake)), day, api)


def killed_and_run_again(world: World, lake: Path, share: float) -> None:
    """Kill a night when this share of its files has been written, run it again, compare."""
    if world.before:
        shutil.copytree(world.before, lake)
    env = nights.environment(world.source, lake, world.api)
    night = nights.start_night(env, world.day)
    first, last = world.files[0] + 1, world.files[1]
    watch(night, lake, until=first + round(share * (last - first)))
    assert night.exitcode == -signal.SIGKILL
    nights.run_night(env, world.day)
    assert_complete(lake / "catalog.duckdb")
    found = nights.contents(lake)
    for table, rows in world.contents.items():
        assert found[table] == rows, table


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> World:
    """A source and no lake yet; how the first night ends."""
    home = tmp_path_factory.mktemp("first")
    nights.make_source(home / "source.duckdb")
    return undisturbed(home / "source.duckdb", None, home / "lake", DAYS[0], prefect_api)


@pytest.fixture(scope="module")
def next_night(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> World:
    """A lake after one night and a source that has gone on since; how the next night ends."""
    home = tmp_path_factory.mktemp("next")
    source = home / "source.duckdb"
    nights.make_source(source)
    nights.run_night(nights.environment(source, home / "before", prefect_api), DAYS[0])
    nights.next_day(source)
    return undisturbed(source, home / "before", home / "lake", DAYS[1], prefect_api)


@pytest.mark.parametrize("moment", sample(range(MOMENTS), 2, 6, 9))
def test_a_killed_night_run_again_ends_as_an_undisturbed_one(
    next_night: World, tmp_path: Path, moment: int
) -> None:
    killed_and_run_again(next_night, tmp_path / "lake", moment / (MOMENTS - 1))


@pytest.mark.slow
@pytest.mark.parametrize("share", sample([0.0, 0.1, 0.2, 0.6, 1.0], 2))
def test_a_killed_first_night_run_again_ends_as_an_undisturbed_one(
    first_night: World, tmp_path: Path, share: float
) -> None:
    killed_and_run_again(first_night, tmp_path / "lake", share)


def test_a_second_night_on_the_same_inputs_changes_nothing(
    next_night: World, tmp_path: Path
) -> None:
    lake = shutil.copytree(next_night.after, tmp_path / "lake")
    env = nights.environment(next_night.source, lake, next_night.api)
    before = commits(lake)
    nights.run_night(env, next_night.day)
    assert commits(lake) == {**before, "runs": before["runs"] + 2}, (
        "its row at the start and at the end"
    )


@pytest.mark.long
def test_two_nights_at_once_end_as_one(next_night: World, tmp_path: Path) -> None:
    assert next_night.before
    lake = shutil.copytree(next_night.before, tmp_path / "lake")
    env = nights.environment(next_night.source, lake, next_night.api)
    both = [nights.start_night(env, next_night.day) for _ in range(2)]
    for night in both:
        night.join(200)
    assert [night.exitcode for night in both] == [0, 0], nights.said(env).read_text()
    assert_complete(lake / "catalog.duckdb")
    found = nights.contents(lake)
    for table, rows in next_night.contents.items():
        assert found[table] == rows, table
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as con:
        nightly = con.execute("select status from runs where flow = 'nightly'").fetchall()
    assert nightly == [("completed",)] * 3  # that of the day before is among them


def commits(lake: Path) -> dict[str, int]:
    """Commits of each table."""
    logs = lake.glob("*/_delta_log")
    return {log.parent.name: len(list(log.glob("*.json"))) for log in logs}
